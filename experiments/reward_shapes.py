"""Screening: which reward shape gives better masks, on the embedded shapes at tiny size, from one supervised policy?

moonseg data build shapes --level 2 --train 40000 --out data/shapes
moonseg rewards compare RUN --sweep experiments/reward_shapes.py     what they would teach, before any is trained with
moonseg sweep experiments/reward_shapes.py --out runs/reward_shapes
moonseg sweep --summarise runs/reward_shapes

`experiments/reward_confirmation.py` is the second round, for the shape that did best.
"""

from __future__ import annotations

import dataclasses

from moonseg_jax.config import tiny
from moonseg_jax.errors import UserError
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.shipped import shipped
from moonseg_jax.sweep.trial import Sweep, Trial
from moonseg_jax.train_config import RlConfig

DATA = "data/shapes"
START = str(shipped("sft"))
"""The supervised policy that comes with the package, so that anyone can run the study."""
METRIC = "miou"
"""What arms are judged by: greedy paths before refinement, on the whole held-out split."""
BASELINE = "iou"
SEEDS = (0, 1, 2)
SHAPES = (
    "iou", "soft_dice", "mean_over_thresholds", "iou_excess", "log_iou",
    "boundary", "boundary_closeness", "least_of_both", "area_times_boundary", "seg_zero_like",
)  # fmt: skip
"""Plain IoU; areas, steps and slopes of it; what tokens cost; the outline, four ways; and what agents are paid with."""


def get_config(stage: str) -> RlConfig:
    """Settings of the stage `rl`, with the baseline's reward."""
    if stage != "rl":
        raise UserError(f"reward_shapes has the stage rl only, not {stage}: it starts from experiments/shapes_tiny.py")
    return rl()


def rl() -> RlConfig:
    """A few minutes on one core. Nothing is judged on the way: trials are judged once, on the whole split.

    Samples near the greedy path (T = .2) and a low rate: warmer samples or larger steps made outlines coarser before
    anything got better (see README.md).
    """
    steps = 150
    return RlConfig(
        model=tiny(), data=DATA, start_from=START, steps=steps, images_per_batch=8, phrases_per_image=2, group=8,
        temperature=0.2, reward=BASELINE, average_decay=0.98, pair_buffer=64, eval_every=steps, eval_scenes=16,
        checkpoint_every=50, log_every=10, log_reference_kl=False,
        optimizer=OptimizerConfig(
            name="muon", learning_rate=4e-4, adam_learning_rate=2e-4, warmup_steps=10, final_fraction=0.1
        ),
    )  # fmt: skip


def sweep() -> Sweep:
    """Every shape under every seed, seeds outermost: the first third of the sweep is a whole comparison already."""
    return Sweep(
        trials=tuple(
            Trial(arm=name, config=dataclasses.replace(rl(), reward=name, seed=seed))
            for seed in SEEDS
            for name in SHAPES
        ),
        baseline=BASELINE,
        judged_by=METRIC,
    )  # fmt: skip
