"""Where the checkpoints lie that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped(name: str) -> Path:
    """Folder of a checkpoint shipped with the package: `sft`, `rl` or `refiner`."""
    return Path(str(resources.files("moonseg_jax") / "assets" / "shapes_tiny" / name))
