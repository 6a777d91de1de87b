"""Precomputed noise tiles and the brightness patterns of objects."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from jaxtyping import Float32

from data_pipelines.shapes.draws import Draws

_TILE = 512
_TILES = 12
_GRIDS = (8, 16, 32, 64)


@functools.cache
def _noise_tiles() -> list[Float32[np.ndarray, "T T"]]:
    """Smooth noise of several octaves, each tile stretched to 0..1."""
    generator = np.random.Generator(np.random.Philox(20240607))
    tiles = []
    for number in range(_TILES):
        tile = np.zeros((_TILE, _TILE), np.float32)
        # The first tiles are broad clouds, the last ones fine grain.
        first = number * (len(_GRIDS) - 1) // (_TILES - 1)
        for octave, grid in enumerate((*_GRIDS, 128)[first : first + 3]):
            rough = generator.random((grid, grid), np.float32)
            tile += cv2.resize(rough, (_TILE, _TILE), interpolation=cv2.INTER_LINEAR) * 0.55**octave
        tiles.append((tile - tile.min()) / (tile.max() - tile.min()))
    return tiles


def noise(height: int, width: int, draws: Draws) -> Float32[np.ndarray, "h w"]:
    """A random piece of smooth noise in 0..1, mirrored at random; at most 512 pixels a side."""
    tile = draws.pick(_noise_tiles())
    top, left = draws.below(_TILE - height + 1), draws.below(_TILE - width + 1)
    piece = tile[top : top + height, left : left + width]
    return piece[::-1] if draws.chance(0.5) else piece


def ramp(height: int, width: int, angle: float) -> Float32[np.ndarray, "h w"]:
    """A linear gradient along a direction (radians), from about -1 to 1 over the window."""
    across = _centred(width) * np.float32(math.cos(angle))
    down = _centred(height) * np.float32(math.sin(angle))
    return down[:, None] + across[None, :]


@functools.cache
def _centred(length: int) -> Float32[np.ndarray, " length"]:
    return np.linspace(-1, 1, length, dtype=np.float32)


def stripes(height: int, width: int, period: float, draws: Draws) -> Float32[np.ndarray, "h w"]:
    """Soft parallel stripes in 0..1 with a period in pixels and a random direction and phase."""
    angle, phase = draws.between(0, math.pi), draws.between(0, 2 * math.pi)
    step = 2 * math.pi / period
    across = np.arange(width, dtype=np.float32) * np.float32(step * math.cos(angle))
    down = np.arange(height, dtype=np.float32) * np.float32(step * math.sin(angle)) + np.float32(phase)
    return np.float32(0.5) + np.float32(0.5) * np.sin(down[:, None] + across[None, :])
