"""What trials must share to be compared, as short texts: the data, and the weights they start from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from data_pipelines.source import open_split
from moonseg_jax.storage import place
from moonseg_jax.train_config import LoopConfig, RefinerConfig, RlConfig, SftConfig
from moonseg_jax.weights import POLICY, REFINER


def data_fingerprint(config: LoopConfig) -> str:
    """Of the data set and its two splits; data sets with equal manifests have equal records.

    Raises:
      UserError: a split is missing or damaged.
    """
    open_split(config.data, config.train_split)
    manifest = open_split(config.data, config.eval_split).manifest
    return fingerprint(
        {"manifest": dataclasses.asdict(manifest), "train": config.train_split, "eval": config.eval_split}
    )


def start_fingerprint(config: SftConfig | RlConfig | RefinerConfig) -> str:
    """Of the bytes of the weights that a trial starts from, a refiner's policy included; of names and sizes alone for
    an imported checkpoint, which may be of many gigabytes. `scratch` where it starts from none."""
    if isinstance(config, RefinerConfig):
        head = "scratch" if config.start_from is None else weights_fingerprint(place(config.start_from), REFINER)
        return fingerprint([weights_fingerprint(place(config.policy), POLICY), head])
    return "scratch" if config.start_from is None else weights_fingerprint(place(config.start_from), POLICY)


def weights_fingerprint(folder: Path, name: str) -> str:
    """Of the bytes of a file of weights; of names and sizes alone for an imported checkpoint."""
    weights = folder / f"{name}.safetensors"
    if weights.is_file():
        with open(weights, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return fingerprint([[str(path.relative_to(folder)), path.stat().st_size] for path in files])


def fingerprint(value: Any) -> str:
    """Sixteen hexadecimal digits of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
