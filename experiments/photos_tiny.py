"""A handful of real photos learned by heart at tiny size: every part learns from real pixels, and that is all.

moonseg data build coco --images DIR --annotations FILE --limit 24 --min-area 0.02 --out data/photos
moonseg train sft     --config experiments/photos_tiny.py
moonseg train rl      --config experiments/photos_tiny.py
moonseg train refiner --config experiments/photos_tiny.py
"""

from __future__ import annotations

import dataclasses

from moonseg_jax.config import ModelConfig, tiny
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.train_config import RefinerConfig, RlConfig, SftConfig

DATA, SPLIT = "data/photos", "train"
"""Judged on the photos it trains on: the figures say what is remembered, not what generalises."""


def get_config(stage: str) -> SftConfig | RlConfig | RefinerConfig:
    """Settings of one stage: `sft`, `rl` or `refiner`."""
    if stage == "sft":
        return sft()
    return rl() if stage == "rl" else refiner()


def model() -> ModelConfig:
    """`tiny` with longer paths: outlines of photos need more vertices than those of shapes."""
    base = tiny()
    return dataclasses.replace(
        base, name="tiny-photos", paths=dataclasses.replace(base.paths, max_new_tokens=64)
    )  # fmt: skip


def crops() -> int:
    """The global crop and all tiles: photos are larger than one crop."""
    return 1 + model().vision.max_tiles


def sft() -> SftConfig:
    """No curriculum: what is learned by heart needs no grounding first."""
    return SftConfig(
        model=model(), data=DATA, eval_split=SPLIT, steps=400, images_per_batch=8, phrases_per_image=2,
        crops=crops(), average_decay=0.98, eval_every=200, eval_scenes=24, checkpoint_every=200,
        optimizer=OptimizerConfig(name="muon", learning_rate=5e-3, adam_learning_rate=4e-3, warmup_steps=50),
    )  # fmt: skip


def rl() -> RlConfig:
    """Short: it makes pairs for the refiner, and shows that rewards of real masks are climbed."""
    return RlConfig(
        model=model(), data=DATA, eval_split=SPLIT, start_from="runs/photos_tiny-sft/last", steps=20,
        images_per_batch=8, phrases_per_image=2, crops=crops(), group=8,
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-4, warmup_steps=5),
        average_decay=0.9, eval_every=20, eval_scenes=24, checkpoint_every=20, log_every=5,
    )  # fmt: skip


def refiner() -> RefinerConfig:
    """Five iterations on the policy's own rollouts, vision encoder frozen."""
    return RefinerConfig(
        model=model(), data=DATA, eval_split=SPLIT, policy="runs/photos_tiny-rl/last",
        pairs="runs/photos_tiny-rl/pairs.npz", steps=300, images_per_batch=8, phrases_per_image=2, crops=crops(),
        optimizer=OptimizerConfig(name="muon", learning_rate=8e-3, adam_learning_rate=2e-3, warmup_steps=30),
        average_decay=0.98, eval_every=150, eval_scenes=24, checkpoint_every=150,
    )  # fmt: skip
