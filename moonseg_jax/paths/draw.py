"""A placed path → a mask of any size, by exact coverage, one square tile at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.paths.placed_path import PlacedPath
from moonseg_jax.paths.raster import FillRule, coverage
from moonseg_jax.types import EdgeBatch

TILE = 512
"""Largest side of a tile in pixels."""

_STEP = 64
"""Sides of smaller tiles are multiples of this, so that few programs are compiled."""

_coverage = jax.jit(coverage, static_argnames=("size", "rule"))


def draw_mask(
    path: PlacedPath, height: int, width: int, rule: FillRule | None = None
) -> Bool[np.ndarray, "height width"]:
    """Pixels of which the path covers more than half.

    Args:
      path: is cut at the border of the image; subpaths close themselves.
      height: of the image, in pixels.
      width: of the image, in pixels.
      rule: what counts as inside; the path's own by default. `union` unites the subpaths whatever their direction.
    """
    mask = np.zeros((height, width), bool)
    points, subpath = _edges(path.polygons(height, width))
    if not len(points):
        return mask
    low = np.clip(np.floor(points.min(axis=(0, 1))), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(points.max(axis=(0, 1))), 0, (width, height)).astype(int)
    side = min(TILE, _STEP * max(math.ceil((high - low).max() / _STEP), 1))
    for x0, y0 in _corners(low, high, side):
        # An edge covers what lies to its right within its rows; others leave no trace in this tile.
        reaches = (points[..., 0].min(axis=1) < x0 + side) & (points[..., 1].min(axis=1) < y0 + side)
        reaches &= points[..., 1].max(axis=1) > y0
        tile = mask[y0 : y0 + side, x0 : x0 + side]
        edges = _batch((points[reaches] - (x0, y0)) / side, subpath[reaches])
        tile[:] = np.asarray(_coverage(edges, size=side, rule=rule or path.rule))[0, : len(tile), : tile.shape[1]] > 0.5
    return mask


def _edges(polygons: list[Float[np.ndarray, "vertices 2"]]) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of every edge float64[edges, 2, 2], in pixels, and the number of its subpath int64[edges]."""
    edges = [np.stack([polygon, np.roll(polygon, -1, axis=0)], axis=1) for polygon in polygons]
    return np.concatenate([np.zeros((0, 2, 2)), *edges]), np.repeat(np.arange(len(edges)), [len(e) for e in edges])


def _corners(low: np.ndarray, high: np.ndarray, side: int) -> Iterator[tuple[int, int]]:
    for y0 in range(int(low[1]), int(high[1]), side):
        for x0 in range(int(low[0]), int(high[0]), side):
            yield x0, y0


def _batch(points: Float[np.ndarray, "edges 2 2"], subpath: np.ndarray) -> EdgeBatch:
    """One row of edges, padded to a power of two."""
    count = len(points)
    slots = 1 << max(count - 1, 7).bit_length()
    padded = np.zeros((1, slots, 2, 2), np.float32)
    padded[0, :count] = points
    numbers = np.full((1, slots), subpath[-1] if count else 0, np.int32)
    numbers[0, :count] = subpath
    return EdgeBatch(
        points=jnp.asarray(padded), valid=jnp.arange(slots)[None] < count, subpath=jnp.asarray(numbers)
    )  # fmt: skip
