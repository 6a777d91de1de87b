"""Confirmation: do the best shape and plain IoU beat continued supervised training of equal time, over six seeds?

moonseg data build shapes --level 2 --seed 1 --train 10000 --val 1000 --out data/shapes_fresh
moonseg sweep experiments/reward_confirmation.py --out runs/reward_confirmation
moonseg sweep --summarise runs/reward_confirmation

Run it after `experiments/reward_shapes.py`, with the shape that did best there in `SHAPES`. Seeds and scenes differ
from those of the screening, which chose the shape, and of the runs that chose the settings.
"""

from __future__ import annotations

import dataclasses

from experiments import reward_shapes
from moonseg_jax.config import tiny
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.sweep.trial import Sweep, Trial
from moonseg_jax.train_config import RlConfig, SftConfig

METRIC = "miou"
CONTROL = "continued_supervised"
"""The baseline of the comparison: the same time spent on more of what came before."""
SHAPES = ("iou", "area_times_boundary")
DATA = "data/shapes_fresh"
SEEDS = tuple(range(10, 16))
BUDGET_SECONDS = 300.0
SECONDS_PER_STEP = {"rl": 1.25, "sft": 0.55}
"""Of one CPU core of the machine that the study ran on; elsewhere put in what `metrics.jsonl` says of short trials.
Steps are fixed before a trial starts, so that learning rates fall as planned and a trial is a function of its config;
the summary checks the seconds that were measured, and says by which number of steps they would be equal."""


def get_config(stage: str) -> SftConfig | RlConfig:
    """Settings of one stage: `sft`, the control, or `rl`."""
    return sft() if stage == "sft" else rl()


def steps(stage: str) -> int:
    """Steps of a stage within the budget."""
    return round(BUDGET_SECONDS / SECONDS_PER_STEP[stage])


def rl() -> RlConfig:
    """The screening's settings, for longer."""
    return dataclasses.replace(
        reward_shapes.rl(), data=DATA, steps=steps("rl"), eval_every=steps("rl")
    )  # fmt: skip


def sft() -> SftConfig:
    """The supervised stage of `experiments/shapes_tiny.py` gone on with, at the rate that did it most good.

    Its peak rates were tried at a fiftieth, a seventeenth and a fifth (see README.md).
    """
    return SftConfig(
        model=tiny(), data=DATA, start_from=reward_shapes.START, steps=steps("sft"), images_per_batch=8,
        phrases_per_image=6, average_decay=0.98, eval_every=steps("sft"), eval_scenes=16, checkpoint_every=100,
        optimizer=OptimizerConfig(
            name="muon", learning_rate=1e-4, adam_learning_rate=8e-5, warmup_steps=20, final_fraction=0.1
        ),
    )  # fmt: skip


def trials(seed: int) -> list[Trial]:
    """The control and every shape under one seed."""
    shapes = [Trial(arm=name, config=dataclasses.replace(rl(), reward=name, seed=seed)) for name in SHAPES]
    return [Trial(arm=CONTROL, config=dataclasses.replace(sft(), seed=seed)), *shapes]


def sweep() -> Sweep:
    """Every arm under every seed, seeds outermost."""
    return Sweep(
        trials=tuple(trial for seed in SEEDS for trial in trials(seed)),
        baseline=CONTROL, judged_by=METRIC, equal="seconds",
    )  # fmt: skip
