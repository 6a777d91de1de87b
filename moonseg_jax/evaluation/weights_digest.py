"""Sixteen digits that tell weights apart: what an evaluation that goes on must find unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from moonseg_jax.storage import files_under
from moonseg_jax.weights import MODEL_FILE

WINDOW, MAX_WINDOWS = 1 << 20, 256
"""Bytes read at a time; of larger files so many windows are read, spread evenly."""


def weights_digest(folder: Path, name: str) -> str:
    """Of the names, sizes and bytes of one network's files and of `model.json`.

    Args:
      folder: of weights, or an imported checkpoint.
      name: `POLICY` or `REFINER`.
    """
    files = {place: stored.size for place, stored in files_under(folder).items()}
    weights = f"{name}.safetensors"
    inside = [weights] if weights in files else [place for place in files if place.startswith(f"{name}/")]
    digest = hashlib.sha256()
    for file in [MODEL_FILE, *sorted(inside, key=PurePosixPath)]:
        size = files.get(file, -1)
        digest.update(f"{file} {size}\n".encode())
        if size > 0:
            with (folder / file).open("rb") as stream:
                for start in _starts(size):
                    stream.seek(start)
                    digest.update(stream.read(WINDOW))
    return digest.hexdigest()[:16]


def _starts(size: int) -> Iterable[int]:
    windows = -(-size // WINDOW)
    if windows <= MAX_WINDOWS:
        return range(0, size, WINDOW)
    return (k * (size - WINDOW) // (MAX_WINDOWS - 1) for k in range(MAX_WINDOWS))
