"""Edges → coverage: exact-area rasterisation on device, differentiable with respect to the points.

An edge covers, with the sign of its vertical direction, everything to its right. Summed over closed subpaths
this is the winding number, and integrated over a pixel it is the exact signed area. Each edge is clipped to
the rows of pixels once; within a row its share of a pixel has a closed form, which is summed edge by edge, so
that nothing larger than the result and the row pieces `[N, E, size]` is ever held.
"""

from __future__ import annotations

from typing import Literal, assert_never

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moonseg_jax.types import EdgeBatch

FillRule = Literal["nonzero", "evenodd", "union"]

_UNROLLED_EDGES = 4
_LEAST_WIDTH = 1e-6
"""Pixels; narrower row pieces are taken as this wide, which changes a coverage by less than it."""


def coverage(
    edges: EdgeBatch, size: int, frame: Float[Array, "N 4"] | None = None, rule: FillRule = "nonzero"
) -> Float[Array, "N size size"]:
    """Share of every pixel that the subpaths cover, in [0, 1].

    `nonzero` is `min(|w|, 1)` and `evenodd` the distance of w to the nearest even number, where w is the
    winding number averaged over the pixel: inside pixels are exact, and so are border pixels that hold one
    boundary which does not cross another. Holes are subpaths of the opposite direction. `union` applies
    `nonzero` to every subpath alone and takes the maximum: directions do not matter and there are no holes.

    Args:
      edges: closed subpaths, points in units of the image; the edges of a subpath follow one another.
      size: pixels along each side of the result.
      frame: x0, y0, x1, y1 in units of the image: the rectangle that is stretched to the result; default
        the whole image. Parts outside are cut off; a frame without area gives zeros.
      rule: what counts as inside.
    """
    points = _in_pixels(edges, size, frame)
    starts_subpath = jnp.pad(edges.subpath[:, 1:] != edges.subpath[:, :-1], ((0, 0), (1, 0)))
    rows = [jnp.moveaxis(piece, 1, 0) for piece in _row_pieces(points, size)]
    winding = jnp.zeros((points.shape[0], size, size), jnp.float32)
    match rule:
        case "nonzero":
            return jnp.minimum(jnp.abs(_sum_edges(winding, rows, size)), 1.0)
        case "evenodd":
            total = _sum_edges(winding, rows, size)
            return jnp.abs(total - 2.0 * jnp.round(total / 2.0))
        case "union":
            return _largest_subpath(winding, rows, starts_subpath.T, size)
        case _:
            assert_never(rule)


def _in_pixels(edges: EdgeBatch, size: int, frame: Float[Array, "N 4"] | None) -> Float[Array, "N E 2 2"]:
    """Points in pixels of the frame; edges that are not valid, or have no frame, shrink to one point."""
    points = edges.points.astype(jnp.float32)
    valid = edges.valid
    if frame is not None:
        corner, extent = frame[:, None, None, :2], (frame[:, 2:] - frame[:, :2])[:, None, None]
        points = (points - corner) / jnp.where(extent > 0, extent, 1.0)
        valid = valid & jnp.all(extent > 0, axis=-1)[..., 0]
    return jnp.where(valid[..., None, None], points * size, 0.0)


def _row_pieces(
    points: Float[Array, "N E 2 2"], size: int
) -> tuple[Float[Array, "N E size"], Float[Array, "N E size"], Float[Array, "N E size"]]:
    """Edges cut at the rows of pixels: signed height, left end and right end of every piece."""
    x, y = points[..., 0, None], points[..., 1, None]
    rise = y[..., 1, :] - y[..., 0, :]
    slope = (x[..., 1, :] - x[..., 0, :]) / jnp.where(rise == 0, 1.0, rise)
    row = jnp.arange(size, dtype=jnp.float32)
    enters, leaves = jnp.clip(y[..., 0, :], row, row + 1), jnp.clip(y[..., 1, :], row, row + 1)
    x_enters = x[..., 0, :] + (enters - y[..., 0, :]) * slope
    x_leaves = x[..., 0, :] + (leaves - y[..., 0, :]) * slope
    return leaves - enters, jnp.minimum(x_enters, x_leaves), jnp.maximum(x_enters, x_leaves)


@jax.checkpoint
def _covered(
    height: Float[Array, "N size"], left: Float[Array, "N size"], right: Float[Array, "N size"]
) -> Float[Array, "N size size"]:
    """Signed area to the right of one edge in every pixel.

    In a row it is `height` times the mean of `clip(j + 1 - x, 0, 1)` over x from left to right.
    """
    column = jnp.arange(height.shape[-1], dtype=jnp.float32)
    width = jnp.maximum(right - left, _LEAST_WIDTH)[..., None]
    from_left = column - left[..., None]
    passed, passing = jnp.clip(from_left, 0.0, width), jnp.clip(from_left + 1.0, 0.0, width)
    under = (passing * passing - passed * passed) * (0.5 / width)
    return height[..., None] * (under + jnp.clip(column + 1.0 - right[..., None], 0.0, 1.0))


def _sum_edges(
    winding: Float[Array, "N size size"], rows: list[Float[Array, "E N size"]], size: int
) -> Float[Array, "N size size"]:
    def add(total: Array, row: list[Array]) -> tuple[Array, None]:
        return total + _covered(*row), None

    return jax.lax.scan(add, winding, rows, unroll=_UNROLLED_EDGES)[0]


def _largest_subpath(
    winding: Float[Array, "N size size"],
    rows: list[Float[Array, "E N size"]],
    starts_subpath: Bool[Array, "E N"],
    size: int,
) -> Float[Array, "N size size"]:
    """Maximum over subpaths of the coverage of each alone, in one pass over the edges."""

    def add(state: tuple[Array, Array], item: tuple[list[Array], Array]) -> tuple[tuple[Array, Array], None]:
        total, largest = state
        row, starts = item
        starts = starts[:, None, None]
        largest = jnp.where(starts, jnp.maximum(largest, jnp.abs(total)), largest)
        return (jnp.where(starts, 0.0, total) + _covered(*row), largest), None

    (total, largest), _ = jax.lax.scan(add, (winding, winding), (rows, starts_subpath), unroll=_UNROLLED_EDGES)
    return jnp.minimum(jnp.maximum(largest, jnp.abs(total)), 1.0)
