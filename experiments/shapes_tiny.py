"""The embedded shapes at tiny size: the recipe of the checkpoints shipped with the package.

moonseg data build shapes --level 2 --train 40000 --out data/shapes
moonseg train sft     --config experiments/shapes_tiny.py
moonseg train rl      --config experiments/shapes_tiny.py
moonseg train refiner --config experiments/shapes_tiny.py
"""

from __future__ import annotations

from moonseg_jax.config import tiny
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.train_config import RefinerConfig, RlConfig, SftConfig

DATA = "data/shapes"
METRIC = "eval_miou"
"""What every stage is judged by, on held-out scenes."""


def get_config(stage: str) -> SftConfig | RlConfig | RefinerConfig:
    """Settings of one stage: `sft`, `rl` or `refiner`."""
    if stage == "sft":
        return sft()
    return rl() if stage == "rl" else refiner()


def sft() -> SftConfig:
    """Many small steps; boxes and the heat map first, because paths mean nothing in a wrong box."""
    return SftConfig(
        model=tiny(), data=DATA, steps=12_000, box_steps=3_000, images_per_batch=8, phrases_per_image=6,
        average_decay=0.998, eval_every=1_000, eval_scenes=96, checkpoint_every=500,
        optimizer=OptimizerConfig(name="muon", learning_rate=5e-3, adam_learning_rate=4e-3, warmup_steps=100),
    )  # fmt: skip


def rl() -> RlConfig:
    """Leave-one-out policy gradient on raw IoU."""
    return RlConfig(
        model=tiny(), data=DATA, start_from="runs/shapes_tiny-sft/best", steps=120, images_per_batch=8,
        phrases_per_image=2, group=8,
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-4, warmup_steps=10, final_fraction=0.3),
        average_decay=0.9, eval_every=40, eval_scenes=96, checkpoint_every=80, log_every=5,
    )  # fmt: skip


def refiner() -> RefinerConfig:
    """Five iterations on the policy's own rollouts, vision encoder frozen."""
    return RefinerConfig(
        model=tiny(), data=DATA, policy="runs/shapes_tiny-rl/last", pairs="runs/shapes_tiny-rl/pairs.npz",
        steps=400, images_per_batch=8, phrases_per_image=2,
        optimizer=OptimizerConfig(name="muon", learning_rate=8e-3, adam_learning_rate=2e-3, warmup_steps=30),
        average_decay=0.98, eval_every=200, eval_scenes=96, checkpoint_every=200,
    )  # fmt: skip
