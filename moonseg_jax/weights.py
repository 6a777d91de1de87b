"""Weights as people pass them on: a folder with `model.json` and safetensors, nothing executable.

FOLDER/model.json            the ModelConfig, and which version wrote it in which format
FOLDER/policy.safetensors    parameters of the policy, names joined with "/"
FOLDER/refiner.safetensors   parameters of the refinement head
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save, save_file

import moonseg_jax
from moonseg_jax.config import (
    ModelConfig,
    PathConfig,
    RefinerHeadConfig,
    RegionConfig,
    TextConfig,
    VisionConfig,
)
from moonseg_jax.errors import UserError
from moonseg_jax.storage import in_bucket, require_readable, write_whole

MODEL_FILE = "model.json"
FORMAT = 1
"""Of the folder; another one is refused, with the way round. Files without it are of the first."""
WRITER = "written_by"
POLICY, REFINER = "policy", "refiner"


def save_weights(folder: Path, name: str, params: Any, model: ModelConfig, dtype: str = "float32") -> Path:
    """Writes parameters and the model's sizes; a file is complete or absent.

    Args:
      folder: created if needed.
      name: `POLICY` or `REFINER`.
      params: nested dicts of arrays.
      model: the sizes.
      dtype: `float32` or `bfloat16`.
    """
    file = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    flat = {"/".join(path): np.ascontiguousarray(leaf, dtype=kind) for path, leaf in flatten_dict(params).items()}
    if in_bucket(file):
        write_whole(file, save(flat))
    else:
        partial = folder / f"{file.name}.partial"
        save_file(flat, partial)
        partial.replace(file)
    write_model_config(folder, model)
    return file


def write_model_config(folder: Path, model: ModelConfig) -> None:
    """Writes `model.json`."""
    fields = {**dataclasses.asdict(model), WRITER: {"version": moonseg_jax.__version__, "format": FORMAT}}
    (folder / MODEL_FILE).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def load_model_config(folder: Path) -> ModelConfig:
    """Reads `model.json`.

    Raises:
      UserError: it is missing or broken, or another version wrote what this one cannot read; says which.
    """
    require_readable(folder)
    file = folder / MODEL_FILE
    if not file.is_file():
        raise UserError(
            f"{folder} holds no weights: {MODEL_FILE} is missing; name a folder of weights, such as RUN/best or "
            "RUN/last of a run of `moonseg train`"
        )
    writer: dict[str, Any] = {}
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        writer = fields.pop(WRITER, {})
        if writer.get("format", FORMAT) != FORMAT:
            raise UserError(
                f"{file} is of format {writer['format']}, this version reads {FORMAT}: {_way_round(writer)}"
            )
        parts: dict[str, dict[str, Any]] = {
            part: {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            for part, values in fields.items()
            if isinstance(values, dict)
        }
        return ModelConfig(
            name=fields["name"],
            vision=VisionConfig(**parts["vision"]),
            text=TextConfig(**parts["text"]),
            region=RegionConfig(**parts["region"]),
            refiner=RefinerHeadConfig(**parts["refiner"]),
            paths=PathConfig(**parts["paths"]),
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        other = _way_round(writer) if writer.get("version", moonseg_jax.__version__) != moonseg_jax.__version__ else ""
        raise UserError(
            f"{file} is not a model config this version can read: {error}" + (f"; {other}" if other else "")
        ) from error


def _way_round(writer: dict[str, Any]) -> str:
    """How weights of another version come into this one: official PyTorch names outlast versions."""
    version = writer.get("version", "unknown")
    return (
        f"moonseg-jax {version} wrote it, this is {moonseg_jax.__version__}; install that version, `moonseg export "
        "--checkpoint FOLDER --format hf --out DIR` there, and `moonseg import --weights DIR` here"
    )


def load_weights(folder: Path, name: str, expected: Any) -> Any:
    """Reads parameters as float32 and checks them against the shapes the model needs.

    Args:
      folder: holds `NAME.safetensors`.
      name: `POLICY` or `REFINER`.
      expected: pytree of shapes (`jax.eval_shape` of `init`).

    Raises:
      UserError: the file is missing or broken, or its tensors are not the model's; names all of them.
    """
    require_readable(folder)
    file = folder / f"{name}.safetensors"
    if not file.is_file():
        raise UserError(f"{folder} holds no {name} weights: {file.name} is missing; train them, or name another folder")
    try:
        found = load(file.read_bytes()) if in_bucket(file) else load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read ({error}); it is not a safetensors file or was cut short") from error
    except (AttributeError, KeyError) as error:  # What the library raises on a type that NumPy does not know.
        raise UserError(
            f"{file} holds numbers of a type that cannot be read ({error}): use bfloat16 or float32"
        ) from error
    wanted = {"/".join(path): leaf.shape for path, leaf in flatten_dict(expected).items()}
    problems = [f"{key}: missing" for key in sorted(wanted.keys() - found.keys())]
    problems += [f"{key}: not part of this model" for key in sorted(found.keys() - wanted.keys())]
    problems += [
        f"{key}: shape {found[key].shape}, the model has {wanted[key]}"
        for key in sorted(wanted.keys() & found.keys())
        if found[key].shape != wanted[key]
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise UserError(f"{file} is a checkpoint of other sizes: {shown}")
    params = {tuple(key.split("/")): jnp.asarray(value, jnp.float32) for key, value in found.items()}
    return jax.tree.map(np.asarray, unflatten_dict(params))
