"""Peak memory of an import, measured in a process of its own on a generated checkpoint."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath
from rich.console import Console
from rich.progress import track

from moonseg_jax.config import ModelConfig, moondream3
from moonseg_jax.convert.config import official_fields
from moonseg_jax.convert.layouts import Shape
from moonseg_jax.convert.names import Naming, policy_places
from moonseg_jax.convert.reading import INDEX
from moonseg_jax.convert.safetensors_file import SafetensorsWriter
from moonseg_jax.convert.shapes import expected_shapes, policy_shapes
from moonseg_jax.errors import UserError

GIB = 1 << 30
ALLOWED_BASE = 1.5 * GIB
"""Allowed peak: this, and twice the largest official tensor."""
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_BLOCK = 1 << 25
_CHILD = """
import json, re, resource, sys
from moonseg_jax.convert.importing import import_checkpoint
weights, out = sys.argv[1:]
import_checkpoint(weights, out)
try:
    # Of this program alone; the kernel's other count may start at the parent's peak.
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(peak))
"""


def bench_import(gib: float, folder: Path | None = None) -> dict[str, Any]:
    """Generates a checkpoint with the published widths, imports it and reports the peak of resident memory.

    Args:
      gib: about how large the checkpoint is; its largest tensor always is that of the full model (512 MiB).
      folder: where to work, needs twice the space; a temporary folder by default. Nothing is left there.

    Returns:
      Bytes of the checkpoint, of its largest tensor, the peak, the allowed peak, seconds, and whether it held.

    Raises:
      UserError: the size is out of range, or the import failed.
    """
    if not 1 <= gib <= 64:
        raise UserError(f"--gib must lie in 1..64, got {gib}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-import-") as name:
        source = Path(name) / "official"
        size, largest = write_checkpoint(source, _sized(gib))
        start = time.monotonic()
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, str(source), str(Path(name) / "imported")], stdout=subprocess.PIPE, text=True
        )
        seconds = time.monotonic() - start
        if child.returncode:
            raise UserError("the import failed, for the reason above")
    peak = int(json.loads(child.stdout.splitlines()[-1]))
    allowed = int(ALLOWED_BASE + 2 * largest)
    return {
        "checkpoint_bytes": size, "largest_tensor_bytes": largest, "peak_bytes": peak, "allowed_bytes": allowed,
        "seconds": round(seconds, 1), "within": peak <= allowed,
    }  # fmt: skip


def write_checkpoint(folder: Path, config: ModelConfig, max_shard: int = 4 * GIB) -> tuple[int, int]:
    """Writes a checkpoint of random bfloat16 values under md3 names, in shards, with index and config.

    Args:
      folder: to create.
      config: the sizes.
      max_shard: bytes of a shard.

    Returns:
      Bytes of all tensors, and of the largest one.
    """
    folder.mkdir(parents=True)
    fields = official_fields(config, Naming.MD3.value)
    (folder / "config.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")
    tensors = [
        (place.name, shape)
        for place, shape in expected_shapes(policy_places(config, Naming.MD3), policy_shapes(config))
    ]
    # Below 2 in absolute value: never NaN, and no compressor makes them small.
    bits = np.random.default_rng(0).integers(0, 1 << 16, _BLOCK, np.uint16) & np.uint16(0xBFFF)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(_shards(tensors, max_shard), 1):
        file = f"model-{number:05d}.safetensors"
        with SafetensorsWriter(
            epath.Path(folder / file), [(name, _BFLOAT16, shape) for name, shape in shard], {}
        ) as to:
            for name, shape in track(shard, description=f"generate: {file}", console=Console(stderr=True)):
                to.write(name, np.resize(np.roll(bits, 7919 * len(weight_map)), shape).view(_BFLOAT16))
                weight_map[name] = file
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    sizes = [_bytes(shape) for _, shape in tensors]
    return sum(sizes), max(sizes)


def _shards(tensors: list[tuple[str, Shape]], max_shard: int) -> Iterator[list[tuple[str, Shape]]]:
    shard: list[tuple[str, Shape]] = []
    filled = 0
    for name, shape in tensors:
        if shard and filled + _bytes(shape) > max_shard:
            yield shard
            shard, filled = [], 0
        shard.append((name, shape))
        filled += _bytes(shape)
    yield shard


def _bytes(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64)) * _BFLOAT16.itemsize


def _sized(gib: float) -> ModelConfig:
    """The published widths with as many routed blocks as fill the size."""
    full = moondream3()

    def model(blocks: int) -> ModelConfig:
        return dataclasses.replace(
            full, name="bench",
            vision=dataclasses.replace(full.vision, layers=2, early_layer=1),
            text=dataclasses.replace(full.text, layers=1 + blocks, dense_layers=1),
        )  # fmt: skip

    def size(blocks: int) -> int:
        return sum(_bytes(shape) for shape in policy_shapes(model(blocks)).values())

    one = size(1)
    return model(1 + max(0, round((gib * GIB - one) / (size(2) - one))))
