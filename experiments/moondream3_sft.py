"""Supervised learning at the published sizes: phrases of COCO photos, traced paths, all parameters trained.

moonseg import --weights hf:moondream/moondream3-preview --out weights/moondream3
moonseg data build union --from data/refcoco data/refcoco+ data/refcocog data/grefcoco data/lvis --out data/union
moonseg train sft --config experiments/moondream3_sft.py

Made to fit: `moonseg plan --preset moondream3 --stage sft --topology v5e:16x16`. It has not been run.
"""

from __future__ import annotations

from moonseg_jax.config import moondream3
from moonseg_jax.errors import UserError
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.train_config import SftConfig

METRIC = "eval_miou"
MESHES = {
    "v5e:16x16": MeshConfig(fsdp=32, expert=8),
    "v5p:4x4x8": MeshConfig(fsdp=16, expert=8),
}
"""By topology; `moonseg plan` reads them, `moonseg train` takes the first unless `--mesh.fsdp` says otherwise."""


def get_config(stage: str) -> SftConfig:
    """Settings of the stage `sft`: two epochs of about 190,000 photos."""
    if stage != "sft":
        raise UserError(f"moondream3_sft has the stage sft only, not {stage}: see moondream3_rl and moondream3_refiner")
    return SftConfig(
        model=moondream3(), data="data/union", start_from="weights/moondream3", steps=1_500, images_per_batch=256,
        phrases_per_image=2, crops=13, dtype="bfloat16", remat="blocks", mesh=MESHES["v5e:16x16"],
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-5, warmup_steps=100, final_fraction=0.1),
        average_decay=0.998, eval_every=250, eval_scenes=1_024, checkpoint_every=250, loader_threads=16,
    )  # fmt: skip
