"""Small official checkpoints for tests: the fixtures, and random ones under official names."""

import dataclasses
import json
import os
import pathlib

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from moonseg_jax.config import ModelConfig, tiny
from moonseg_jax.convert.config import official_fields
from moonseg_jax.convert.names import Naming, policy_places
from moonseg_jax.convert.shapes import expected_shapes, policy_shapes

SEEDS = {"A_seed0": "md3", "A_seed1": "hf"}
"""Fixture → its naming."""


def fixture(seed: str) -> pathlib.Path:
    """The folder of a fixture; skips where there is none."""
    if "MOONSEG_FIXTURES" not in os.environ:
        pytest.skip("MOONSEG_FIXTURES does not name the folder of official outputs")
    return pathlib.Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3" / seed


def toy(**text: int) -> ModelConfig:
    """The smallest model with both kinds of text blocks; `text` changes its decoder."""
    config = tiny()
    return dataclasses.replace(
        config,
        name="toy",
        vision=dataclasses.replace(
            config.vision, width=8, layers=2, heads=2, mlp_width=12, projection_width=10
        ),
        text=dataclasses.replace(
            config.text,
            **{"width": 8, "layers": 3, "dense_layers": 1, "heads": 2, "mlp_width": 16, "expert_width": 4} | text,
        ),
        region=dataclasses.replace(config.region, coord_features=6, coord_bins=5, size_features=8, size_bins=7),
    )  # fmt: skip


def random_tensors(config: ModelConfig, naming: Naming, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Random values for every official tensor; no two tensors are alike."""
    rng = np.random.default_rng(0)
    expected = expected_shapes(policy_places(config, naming), policy_shapes(config))
    return {place.name: rng.normal(size=shape).astype(dtype) for place, shape in expected}


def with_quantised_experts(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same md3 checkpoint with FP8 experts and scales, and with the float32 values these stand for."""
    stored, meant = dict(tensors), dict(tensors)
    for name in tensors:
        for end, scales in (("mlp.experts.weight", "up_scale"), ("mlp.output_experts.weight", "down_scale")):
            if name.endswith(end):
                scale = 0.25 + np.random.default_rng(1).random(tensors[name].shape[:2], np.float32)
                stored[name] = (tensors[name] / scale[..., None]).astype(ml_dtypes.float8_e4m3fn)
                stored[name.replace(end, f"moe_quant.{scales}")] = scale
                meant[name] = stored[name].astype(np.float32) * scale[..., None]
    return stored, meant


def write(folder: pathlib.Path, config: ModelConfig, tensors: dict[str, np.ndarray]) -> pathlib.Path:
    """Writes `model.safetensors` and `config.json`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(official_fields(config, "md3")))
    return folder


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Names, types, shapes and bytes are equal."""
    assert found.keys() == expected.keys()
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in expected.items()
    }
    assert [name for name in found if found[name].tobytes() != expected[name].tobytes()] == []
