"""Where should a refiner's coarse masks come from: the policy's rollouts, corrupted ground truths, or both?

moonseg sweep experiments/refiner_sources.py --pairs runs/shapes_tiny-rl/pairs.npz --out runs/refiner_sources
moonseg sweep --summarise runs/refiner_sources

Equal pairs of equal examples, equal steps, the shipped policy's encoder, three seeds. `pairs.npz` is what
`moonseg train rl` leaves in its run; `--pair-count` must not be more than it holds. Beside every result lies
`evidence.json`: each iteration, by object size and coarse IoU, calibration, flood fill, on coarse masks of three kinds.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from moonseg_jax.config import tiny
from moonseg_jax.errors import UserError
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.shipped import shipped
from moonseg_jax.sweep.trial import Sweep, Trial
from moonseg_jax.train_config import RefinerConfig

DATA = "data/shapes"
METRIC = "biou_2px"
"""What arms are judged by: the outline of refined masks, on the whole held-out split."""
BASELINE: Literal["synthetic"] = "synthetic"
"""The rival: what anyone can do without a policy."""
SOURCES: tuple[Literal["rollouts", "synthetic", "both"], ...] = ("rollouts", "synthetic", "both")
SEEDS = (0, 1, 2)
PAIRS = "runs/shapes_tiny-rl/pairs.npz"
"""Unless `--pairs` names another file."""


def get_config(stage: str) -> RefinerConfig:
    """Settings of the stage `refiner`, with the rival's pairs."""
    if stage != "refiner":
        raise UserError(
            f"refiner_sources has the stage refiner only, not {stage}: policy and pairs come from "
            "experiments/shapes_tiny.py"
        )
    return refiner()


def refiner() -> RefinerConfig:
    """From scratch; some right masks among the coarse ones, so that no arm forgets to leave them alone.

    Nothing is judged on the way: trials are judged once, on the whole split. Without a file of pairs synthetic ones
    would answer other examples than rollouts, so that every arm names it.
    """
    steps = 1_500
    return RefinerConfig(
        model=tiny(), data=DATA, policy=str(shipped("rl")), pairs=PAIRS, pairs_from=BASELINE, pair_count=2_048,
        identity_share=0.1, steps=steps, images_per_batch=8, phrases_per_image=2, average_decay=0.99,
        eval_every=steps, eval_scenes=16, checkpoint_every=250, log_every=25,
        optimizer=OptimizerConfig(name="muon", learning_rate=8e-3, adam_learning_rate=2e-3, warmup_steps=30),
    )  # fmt: skip


def sweep() -> Sweep:
    """Every source under every seed, seeds outermost: the first third of the sweep is a whole comparison already."""
    return Sweep(
        trials=tuple(
            Trial(arm=source, config=dataclasses.replace(refiner(), pairs_from=source, seed=seed))
            for seed in SEEDS
            for source in SOURCES
        ),
        baseline=BASELINE,
        judged_by=METRIC,
    )
