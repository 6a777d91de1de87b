"""The refiner at the published sizes: the official head from scratch, on pairs of the policy's rollouts and of truths.

moonseg train refiner --config experiments/moondream3_refiner.py

Made to fit: `moonseg plan --preset moondream3 --stage refine --topology v5e:16x16`. It has not been run.
"""

from __future__ import annotations

from moonseg_jax.config import moondream3
from moonseg_jax.errors import UserError
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.train_config import RefinerConfig

METRIC = "eval_miou"
MESHES = {
    "v5e:16x16": MeshConfig(data=8, fsdp=32),
    "v5p:4x4x8": MeshConfig(data=4, fsdp=32),
}
"""By topology; `moonseg plan` reads them, `moonseg train` takes the first unless `--mesh.fsdp` says otherwise."""


def get_config(stage: str) -> RefinerConfig:
    """Settings of the stage `refiner`; half of the pairs are corrupted truths, since neither source won alone."""
    if stage != "refiner":
        raise UserError(
            f"moondream3_refiner has the stage refiner only, not {stage}: see moondream3_sft, moondream3_rl"
        )
    return RefinerConfig(
        model=moondream3(), data="data/union", policy="runs/moondream3_rl-rl/best",
        pairs="runs/moondream3_rl-rl/pairs.npz", pairs_from="both", steps=10_000, images_per_batch=512, crops=13,
        identity_share=0.1, cache_features=False, mesh=MESHES["v5e:16x16"],
        optimizer=OptimizerConfig(name="muon", learning_rate=4e-3, adam_learning_rate=1e-3, warmup_steps=200),
        average_decay=0.999, eval_every=1_000, eval_scenes=1_024, checkpoint_every=500, loader_threads=16,
    )  # fmt: skip
