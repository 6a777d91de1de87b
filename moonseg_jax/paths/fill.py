"""Point-sampled filling of polygons on the host: which pixel centres lie inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def fill(
    polygons: Sequence[Float[np.ndarray, "vertices 2"]], height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """Pixels whose centre has a non-zero winding number; see `winding_numbers`."""
    return winding_numbers(polygons, height, width) != 0


def winding_numbers(
    polygons: Sequence[Float[np.ndarray, "vertices 2"]], height: int, width: int
) -> Int[np.ndarray, "height width"]:
    """How often closed polygons run around the centre of every pixel, clockwise in the image less counter-clockwise.

    Each edge crosses the centre lines of some rows; a crossing changes the winding of everything to its
    right, so the winding is a prefix sum of crossings. A centre exactly on an edge counts as inside if the
    interior is below or to the right of the edge.

    Args:
      polygons: closed subpaths, (x, y) in pixels (pixel edges are integers), each closing itself.
      height: rows of the mask.
      width: columns of the mask.
    """
    crossings = np.zeros(height * (width + 1), np.int64)
    if polygons:
        start = np.concatenate(polygons).astype(np.float64)
        end = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons]).astype(np.float64)
        downward = end[:, 1] > start[:, 1]
        top = np.where(downward[:, None], start, end)
        bottom = np.where(downward[:, None], end, start)
        first = np.clip(np.ceil(top[:, 1] - 0.5), 0, height).astype(np.int64)
        count = np.clip(np.ceil(bottom[:, 1] - 0.5), 0, height).astype(np.int64) - first
        edge = np.repeat(np.arange(len(start)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        rise = bottom[:, 1] - top[:, 1]
        slope = (bottom[:, 0] - top[:, 0]) / np.where(count > 0, rise, 1.0)
        x = top[edge, 0] + (row + 0.5 - top[edge, 1]) * slope[edge]
        column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        sign = np.where(downward[edge], -1, 1)
        crossings = np.bincount(row * (width + 1) + column, sign, minlength=len(crossings))
    winding = np.cumsum(crossings.reshape(height, width + 1), axis=1)[:, :-1]
    return np.rint(winding).astype(np.int64)
