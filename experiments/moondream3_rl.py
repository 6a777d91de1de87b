"""Reinforcement learning at the published sizes: groups of eight paths per phrase, paid by area and outline.

moonseg train rl --config experiments/moondream3_rl.py

Engines of eight devices share heads, vocabulary and experts (`tensor`), so that keys and values of 32 paths fit beside
the weights. Made to fit: `moonseg plan --preset moondream3 --stage rl-rollout --topology v5e:16x16`, and `rl-learn`. It
has not been run.
"""

from __future__ import annotations

from moonseg_jax.config import moondream3
from moonseg_jax.errors import UserError
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.train_config import RlConfig

METRIC = "eval_miou"
MESHES = {
    "v5e:16x16": MeshConfig(fsdp=32, tensor=8),
    "v5p:4x4x8": MeshConfig(fsdp=32, tensor=4),
}
"""By topology; `moonseg plan` reads them, `moonseg train` takes the first unless `--mesh.fsdp` says otherwise."""


def get_config(stage: str) -> RlConfig:
    """Settings of the stage `rl`; temperature and reward are those that moved greedy masks at tiny size."""
    if stage != "rl":
        raise UserError(f"moondream3_rl has the stage rl only, not {stage}: see moondream3_sft and moondream3_refiner")
    return RlConfig(
        model=moondream3(), data="data/union", start_from="runs/moondream3_sft-sft/best", steps=1_000,
        images_per_batch=256, phrases_per_image=1, crops=13, group=8, slots=32, temperature=0.2,
        reward="area_times_boundary", dtype="bfloat16", remat="blocks", microbatches=8, mesh=MESHES["v5e:16x16"],
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-6, warmup_steps=20, final_fraction=0.1),
        log_reference_kl=False, split_rollout_time=False, average_decay=0.98, eval_every=100, eval_scenes=1_024,
        checkpoint_every=50, log_every=5, pair_buffer=65_536, loader_threads=16,
    )  # fmt: skip
