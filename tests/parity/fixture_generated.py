"""A fixture of other sizes with random weights: everything but the expected outputs."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from moonseg_jax.config import ModelConfig
from moonseg_jax.convert.config import model_config, refiner_encoder_config
from moonseg_jax.convert.layouts import Shape
from moonseg_jax.convert.names import Naming, Place, policy_places
from moonseg_jax.convert.refiner_names import refiner_places
from moonseg_jax.convert.safetensors_file import SafetensorsWriter
from moonseg_jax.convert.shapes import expected_shapes, policy_shapes, refiner_shapes

GRID, REFINER_GRID = 4, 3
VISION = {
    "enc_dim": 24, "enc_patch_size": 8, "enc_n_layers": GRID, "enc_ff_dim": 40, "enc_n_heads": 2, "proj_out_dim": 40,
    "crop_size": 8 * GRID, "in_channels": 3, "max_crops": 6, "overlap_margin": 1, "proj_inner_dim": 56,
}  # fmt: skip
SIZES: dict[str, Any] = {
    "name": "generated",
    "vision": VISION,
    "vision_early_layer": 2,
    "text": {
        "dim": 40, "ff_dim": 72, "n_layers": 3, "vocab_size": 90, "max_context": 200, "n_heads": 5, "n_kv_heads": 5,
        "prefix_attn": 1 + GRID**2, "group_size": None, "tau_attn": True, "rope_theta": 10000.0,
        "moe": {"num_experts": 5, "start_layer": 1, "experts_per_token": 3, "expert_inner_dim": 24},
    },
    "region": {
        "dim": 40, "coord_feat_dim": 12, "coord_out_dim": 50, "size_feat_dim": 20, "size_out_dim": 60,
        "decoder_arch": "linear", "use_ln": False,
    },
    "refiner": {"enc_dim": 16, "embed_dim": 64, "num_heads": 4, "num_layers": 1, "num_masks": 3},
    "refiner_vision": {**VISION, "enc_dim": 16, "crop_size": 16 * REFINER_GRID, "enc_patch_size": 16},
    "refiner_early_layer": 1,
    "refiner_iters": 2,
    "tokens": {"bos": 0, "eos": 0, "answer": 3, "thinking": 4, "coord": 5, "size": 6},
    "tau_gelu": "exact",
    "weights_dtype": "bfloat16",
    "weight_naming": "hf",
    "refiner_case": {"bbox": {"x_min": 0.1, "y_min": 0.2, "x_max": 0.8, "y_max": 0.9}},
}  # fmt: skip

OUTPUT_BIAS = "model.text.lm_head.bias"


def write_generated(folder: pathlib.Path) -> None:
    """Writes `config.json`, the three files of weights as bfloat16 and `inputs.npz`."""
    rng = np.random.default_rng(0)
    config, refiner = model_config(SIZES), refiner_encoder_config(SIZES)
    (folder / "config.json").write_text(json.dumps(SIZES))
    for file, sizes, part in (("weights_hf", config, None), ("refiner_vision_hf", refiner, "vision")):
        places = (place for place in policy_places(sizes, Naming.HF) if part in (None, place.paths[0][0]))
        write_random(folder / f"{file}.safetensors", expected_shapes(places, policy_shapes(sizes)), rng)
    head = expected_shapes(refiner_places(refiner.refiner), refiner_shapes(refiner))
    write_random(folder / "refiner_head.safetensors", head, rng)
    np.savez(folder / "inputs.npz", **random_inputs(config, rng))  # type: ignore[arg-type]


def write_random(file: pathlib.Path, tensors: Iterable[tuple[Place, Shape]], rng: np.random.Generator) -> None:
    """Normal values of variance 1 / fan-in under official names; the first token is always EOS."""
    values = {place.name: rng.normal(0.0, shape[-1] ** -0.5, shape) for place, shape in tensors}
    if OUTPUT_BIAS in values:
        values[OUTPUT_BIAS][0] = 100.0
    stored = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in values.items()}
    with SafetensorsWriter(epath.Path(file), [(name, t.dtype, t.shape) for name, t in stored.items()], {}) as writer:
        for name, tensor in stored.items():
            writer.write(name, tensor)


def random_inputs(config: ModelConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs of every case; the tiling is 3 x 2 in one image."""
    side, width, text = config.vision.crop, SIZES["refiner"]["enc_dim"], config.text
    coarse = np.zeros((60, 50), np.uint8)
    coarse[15:50, 10:35] = 1

    def pixels(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)

    def rows(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return {
        "vision0/crops": pixels(7, side, side), "vision0/tiling": np.array([3, 2]),
        "vision1/crops": pixels(2, side, side), "vision1/tiling": np.array([1, 1]),
        "text/prompt_ids": rng.integers(7, text.vocabulary, 9), "textonly/ids": rng.integers(7, text.vocabulary, 6),
        "forced/ids": np.array([5, 5, 6, 40, 5, 41]),
        "spatialref/refs": np.array([[0.2, 0.1, 0.7, 0.9], [0.5, 0.25, -1.0, -1.0]], np.float32),
        "region/coords": rng.uniform(size=(4, 1)).astype(np.float32),
        "region/sizes": rng.uniform(size=(4, 2)).astype(np.float32), "region/hidden": rows(3, text.width),
        "head/final_features": rows(1, REFINER_GRID**2, width), "head/early_features": rows(1, REFINER_GRID**2, width),
        "head/mask": rng.uniform(size=(1, 1, 33, 37)).astype(np.float32),
        "pipe/image": pixels(60, 50), "pipe/coarse_mask": coarse,
    }  # fmt: skip
