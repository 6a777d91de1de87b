"""All stages at the published sizes on one host of eight GPUs: low-rank factors of attention and experts are trained.

moonseg train sft --config experiments/moondream3_8gpu.py
moonseg train rl --config experiments/moondream3_8gpu.py
moonseg train refiner --config experiments/moondream3_8gpu.py

The recipes of pods (`moondream3_sft`, `moondream3_rl`, `moondream3_refiner`: they say where weights and data come
from) with a frozen base in bfloat16, fewer images a step and ten times the rate, as is usual for factors. Made to fit:
`moonseg plan --preset moondream3 --stage sft --topology h100:8`, and the other stages, by the counts of another
compiler. It has not been run.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments import moondream3_refiner, moondream3_rl, moondream3_sft
from moonseg_jax.errors import UserError
from moonseg_jax.learner.trainable import LoraConfig
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.train_config import RefinerConfig, RlConfig, SftConfig

METRIC = "eval_miou"
ONE_HOST = MeshConfig(fsdp=8)
MESHES = {"h100:8": ONE_HOST, "h200:8": ONE_HOST}
"""By topology; `moonseg plan` reads them."""
LORA = LoraConfig(rank=32, base_dtype="bfloat16")


def get_config(stage: str) -> SftConfig | RlConfig | RefinerConfig:
    """Settings of a stage for a host of 8 x 80 GB; each starts from what the one before it left."""
    match stage:
        case "sft":
            of_pod: Any = moondream3_sft.get_config(stage)
            return dataclasses.replace(
                of_pod, steps=6_000, images_per_batch=64, microbatches=2, lora=LORA, mesh=ONE_HOST,
                optimizer=dataclasses.replace(of_pod.optimizer, learning_rate=1e-4),
            )  # fmt: skip
        case "rl":
            of_pod = moondream3_rl.get_config(stage)
            return dataclasses.replace(
                of_pod, start_from="runs/moondream3_8gpu-sft/best", images_per_batch=32, microbatches=4, slots=32,
                lora=LORA, mesh=ONE_HOST, optimizer=dataclasses.replace(of_pod.optimizer, learning_rate=2e-5),
            )  # fmt: skip
        case "refiner":
            of_pod = moondream3_refiner.get_config(stage)
            return dataclasses.replace(
                of_pod, policy="runs/moondream3_8gpu-rl/best", pairs="runs/moondream3_8gpu-rl/pairs.npz",
                images_per_batch=128, mesh=ONE_HOST,
            )  # fmt: skip
        case unknown:
            raise UserError(f"moondream3_8gpu has the stages sft, rl and refiner, not {unknown}")
