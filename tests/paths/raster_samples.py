"""Paths to draw, and their exact areas."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import shapely

from moonseg_jax.types import EdgeBatch


def edges(*paths: Sequence[np.ndarray], slots: int | None = None) -> EdgeBatch:
    """One row per path; a path is a list of polygons [vertices, 2] in units of the image."""
    slots = slots or max(sum(map(len, polygons)) for polygons in paths)
    points, subpath = np.zeros((len(paths), slots, 2, 2), np.float32), np.zeros((len(paths), slots), np.int32)
    valid = np.zeros((len(paths), slots), bool)
    for row, polygons in enumerate(paths):
        at = 0
        for number, polygon in enumerate(polygons):
            here = slice(at, at + len(polygon))
            points[row, here] = np.stack([polygon, np.roll(polygon, -1, axis=0)], axis=1)
            subpath[row, here], valid[row, here] = number, True
            at += len(polygon)
        subpath[row, at:] = len(polygons)
    return EdgeBatch(points=jnp.asarray(points), valid=jnp.asarray(valid), subpath=jnp.asarray(subpath))


def star_shaped(rng: np.random.Generator, vertices: int, reach: float = 0.45) -> np.ndarray:
    """A simple polygon: vertices by angle around the centre, float32 values."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, vertices - 3))
    angle = np.sort(np.concatenate([angle, [0.3, 2.3, 4.3]]))
    radius = rng.uniform(0.1 * reach, reach, vertices)
    points = 0.5 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points.astype(np.float32).astype(np.float64)


def square(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def exact_areas(shape: shapely.Geometry, height: int, width: int | None = None) -> np.ndarray:
    """Area of the intersection with every pixel; the shape is in pixels."""
    rows, columns = np.mgrid[:height, : width or height]
    return shapely.area(shapely.intersection(shapely.box(columns, rows, columns + 1, rows + 1), shape))
