"""Axis 6, topology: parts, holes, specks and crossings. Agreement lies in (0, 1], costs lie in [-1, 0]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.types import EdgeBatch

_LEAST_DISTANCE = 1e-6
"""Units of the image; points nearer to a line lie on it, whatever rounding says."""


def euler_characteristic(mask: Bool[Array, "R C"]) -> Int[Array, ""]:
    """Parts less holes, where pixels that touch at a corner are connected.

    (n1 - n3 - 2 nd) / 4 over all 2 x 2 windows: n1 with one pixel set, n3 with three, nd with two on a diagonal
    (Gray 1971). Exact, and much cheaper than labelling parts, but a part too many hides a hole too many.
    """
    padded = jnp.pad(mask, 1).astype(jnp.int8)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    count = a + b + c + d
    one, three, diagonal = count == 1, count == 3, (count == 2) & (a == d)
    total = one.astype(jnp.int32) - three.astype(jnp.int32) - 2 * diagonal.astype(jnp.int32)
    return jnp.sum(total) // 4


def euler_agreement(drawn: Bool[Array, "R C"], truth: Bool[Array, "R C"]) -> Float[Array, ""]:
    """1 / (1 + |difference of parts less holes|)."""
    return 1.0 / (1.0 + jnp.abs(euler_characteristic(drawn) - euler_characteristic(truth)))


def subpath_areas(edges: EdgeBatch) -> tuple[Float[Array, " E"], Bool[Array, " E"]]:
    """Area that each subpath of one path encloses (shoelace formula; crossed parts count with their sign).

    Args:
      edges: of one path, without the leading dimension; the edges of a subpath close it and follow one another.

    Returns:
      Areas in units of the image's area, in the order of the path, and which of the E places are taken.
    """
    count = edges.valid.shape[0]
    place = jnp.cumsum(jnp.pad(edges.subpath[1:] != edges.subpath[:-1], (1, 0)))
    middle = jnp.where(edges.valid[:, None], edges.points[:, 0], 0.0).sum(axis=0) / jnp.maximum(edges.valid.sum(), 1)
    start, end = edges.points[:, 0] - middle, edges.points[:, 1] - middle
    swept = jnp.where(edges.valid, start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0], 0.0) / 2

    def of_subpath(values: Array) -> Array:
        return jax.ops.segment_sum(values, place, num_segments=count)

    return jnp.abs(of_subpath(swept)), of_subpath(edges.valid.astype(jnp.int32)) > 0


def speck_cost(edges: EdgeBatch, truth: Bool[Array, "R C"], share: float) -> Float[Array, ""]:
    """-(subpaths smaller than a share of the true area) / (all subpaths); 0 for a path without subpaths.

    Args:
      edges: of one path, see `subpath_areas`.
      truth: ground truth over the whole image.
      share: a subpath below this part of the true area is a speck.
    """
    areas, present = subpath_areas(edges)
    specks = present & (areas < share * jnp.mean(truth, dtype=jnp.float32))
    return 0.0 - jnp.sum(specks) / jnp.maximum(jnp.sum(present), 1)


def crossings(edges: EdgeBatch) -> Int[Array, ""]:
    """Pairs of edges of one path that cross in their interiors; touching and overlapping do not count.

    All pairs at once, E^2 comparisons: cheap for polygons, dear for curves flattened to thousands of edges.
    """
    start, end = edges.points[:, 0], edges.points[:, 1]
    direction = end - start
    least = _LEAST_DISTANCE * jnp.linalg.norm(direction, axis=-1)

    def side(points: Float[Array, "E 2"]) -> Float[Array, "E E"]:
        """On which side of edge i point j lies: -1, 0 (on its line) or 1."""
        offset = points[None] - start[:, None]
        area = direction[:, None, 0] * offset[..., 1] - direction[:, None, 1] * offset[..., 0]
        return jnp.where(jnp.abs(area) > least[:, None], jnp.sign(area), 0.0)

    parts = side(start) * side(end) < 0
    both_valid = edges.valid[:, None] & edges.valid[None]
    return jnp.sum(parts & parts.T & both_valid) // 2


def crossing_cost(edges: EdgeBatch, full: float) -> Float[Array, ""]:
    """-min(crossings / full, 1), see `crossings`."""
    return 0.0 - jnp.minimum(crossings(edges) / full, 1.0)
