"""The embedded shapes at tiny size: the recipe of the checkpoints shipped with the package.

    moonseg data build shapes --out data/shapes
    moonseg train sft     --config experiments/shapes_tiny.py --out runs/sft
    moonseg train rl      --config experiments/shapes_tiny.py --out runs/rl      --start-from runs/sft/best
    moonseg train refiner --config experiments/shapes_tiny.py --out runs/refiner --policy runs/rl/best
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
    return {"sft": sft, "rl": rl, "refiner": refiner}[stage]()


def sft() -> SftConfig:
    """Many small steps; boxes and the heat map first, because paths mean nothing in a wrong box."""
    return SftConfig(
        model=tiny(), data=DATA, steps=12_000, box_steps=4_000, images_per_batch=16, phrases_per_image=3,
        optimizer=OptimizerConfig(name="muon", learning_rate=4e-3, adam_learning_rate=2e-3, warmup_steps=200),
        average_decay=0.998, eval_every=1_000, eval_scenes=160, checkpoint_every=1_000,
    )  # fmt: skip


def rl() -> RlConfig:
    """Leave-one-out policy gradient on raw IoU, with a little supervision to keep greedy decoding in place."""
    return RlConfig(
        model=tiny(), data=DATA, start_from="runs/shapes_tiny-sft/best", steps=400, images_per_batch=8,
        phrases_per_image=2, group=8, supervised_weight=0.1,
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-4, warmup_steps=10, final_fraction=0.3),
        average_decay=0.95, eval_every=100, eval_scenes=160, checkpoint_every=100, log_every=5,
    )  # fmt: skip


def refiner() -> RefinerConfig:
    """Five iterations on the policy's own rollouts, vision encoder frozen."""
    return RefinerConfig(
        model=tiny(), data=DATA, policy="runs/shapes_tiny-rl/best", pairs=None, steps=1_500, images_per_batch=16,
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-3, warmup_steps=50),
        average_decay=0.99, eval_every=500, eval_scenes=160, checkpoint_every=500,
    )  # fmt: skip
