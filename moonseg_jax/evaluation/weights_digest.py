"""Sixteen digits that tell weights apart: what an evaluation that goes on must find unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from moonseg_jax.weights import MODEL_FILE

WINDOW, MAX_WINDOWS = 1 << 20, 256
"""Bytes read at a time; of larger files so many windows are read, spread evenly."""


def weights_digest(folder: Path, name: str) -> str:
    """Of the names, sizes and bytes of one network's files and of `model.json`.

    Args:
      folder: of weights, or an imported checkpoint.
      name: `POLICY` or `REFINER`.
    """
    weights = folder / f"{name}.safetensors"
    inside = [weights] if weights.is_file() else [path for path in (folder / name).rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for file in [folder / MODEL_FILE, *sorted(inside)]:
        size = file.stat().st_size if file.is_file() else -1
        digest.update(f"{file.relative_to(folder)} {size}\n".encode())
        if size > 0:
            with open(file, "rb") as stream:
                for start in _starts(size):
                    stream.seek(start)
                    digest.update(stream.read(WINDOW))
    return digest.hexdigest()[:16]


def _starts(size: int) -> Iterable[int]:
    windows = -(-size // WINDOW)
    if windows <= MAX_WINDOWS:
        return range(0, size, WINDOW)
    return (k * (size - WINDOW) // (MAX_WINDOWS - 1) for k in range(MAX_WINDOWS))
