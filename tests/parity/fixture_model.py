"""Model and refiner of a fixture, through the importer: sizes from `config.json`, weights under official names."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from moonseg_jax.config import ModelConfig
from moonseg_jax.convert.config import model_config, read_config, refiner_encoder_config
from moonseg_jax.convert.moondream import import_policy, import_refiner, import_vision
from moonseg_jax.convert.official import OfficialTensors
from moonseg_jax.convert.safetensors_file import SafetensorsFile, SafetensorsWriter

UP = (".mlp.experts.weight", ".mlp.fc1.weight")
DOWN = (".mlp.output_experts.weight", ".mlp.fc2.weight")
FP8 = np.dtype(ml_dtypes.float8_e4m3fn)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixture:
    """What one folder holds, ready to run."""

    sizes: Mapping[str, Any]
    """`config.json`."""
    inputs: Mapping[str, np.ndarray]
    """`inputs.npz`."""
    config: ModelConfig
    params: Any
    fp8_params: Any
    """The same with experts that went through an FP8 checkpoint."""
    refiner_config: ModelConfig
    """With the encoder of 27 x 27 patches that only the refiner uses."""
    refiner_params: Any
    """Of that encoder."""
    head_params: Any


def load_fixture(folder: pathlib.Path) -> Fixture:
    """Imports everything as float32, whatever it is stored as."""
    sizes = read_config(folder / "config.json")
    inputs = dict(np.load(folder / "inputs.npz"))
    naming = sizes["weight_naming"]
    weights = folder / f"weights_{naming}.safetensors"
    config, params = import_policy(weights, model_config(sizes), "float32")
    with tempfile.TemporaryDirectory() as scratch:
        quantised = pathlib.Path(scratch) / "fp8.safetensors"
        write_fp8(weights, quantised)
        _, fp8_params = import_policy(quantised, model_config(sizes), "float32")
    refiner_config = refiner_encoder_config(sizes)
    encoder = folder / f"refiner_vision_{naming}.safetensors"
    return Fixture(
        sizes=sizes, inputs=inputs, config=config, params=params, fp8_params=fp8_params,
        refiner_config=refiner_config, refiner_params=import_vision(encoder, refiner_config, "float32"),
        head_params=import_refiner(folder / "refiner_head.safetensors", refiner_config, "float32"),
    )  # fmt: skip


def write_fp8(source: pathlib.Path, target: pathlib.Path) -> dict[str, np.ndarray]:
    """Writes the FP8 form of a checkpoint: experts as float8 with one scale per expert and output row.

    Returns:
      All its tensors, by clean name.
    """
    stored = OfficialTensors(SafetensorsFile(epath.Path(source)), str(source))
    tensors: dict[str, np.ndarray] = {}
    for name in stored.entries:
        tensors[name] = stored.read(name)
        if stored.entries[name].scales is not None:
            continue  # Values that went through FP8 already.
        for ends, kind in ((UP, "up"), (DOWN, "down")):
            if tensors[name].ndim == 3 and name.endswith(ends):
                block = name.removesuffix(next(end for end in ends if name.endswith(end)))
                tensors[name], tensors[f"{block}.moe_quant.{kind}_scale"] = quantise(tensors[name])
    due = [(name, values.dtype, values.shape) for name, values in tensors.items()]
    with SafetensorsWriter(epath.Path(target), due, {}) as writer:
        for name, values in tensors.items():
            writer.write(name, values)
    return tensors


def quantise(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FP8 values and scales [expert, row] of bfloat16 experts; the largest value of a row becomes the largest FP8."""
    weights = weights.astype(ml_dtypes.bfloat16).astype(np.float32)
    scales = np.abs(weights).max(axis=-1) / np.float32(ml_dtypes.finfo(FP8).max)
    # A row of zeros takes any scale.
    scales = np.where(scales == 0, np.float32(1), scales)
    return (weights / scales[..., None]).astype(FP8), scales
