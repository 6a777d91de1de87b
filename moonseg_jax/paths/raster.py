"""Edges → coverage: exact-area rasterisation on device, differentiable with respect to the points.

An edge covers, with the sign of its vertical direction, everything to its right. Summed over closed subpaths
this is the winding number, and integrated over a pixel it is the exact signed area. Each edge is clipped to
the rows of pixels once (`row_pieces`), and every row adds up the edges that it meets (`winding`), so that nothing
larger than the result and the row pieces `[N, E, height]` is ever held.
"""

from __future__ import annotations

from typing import Literal, assert_never

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moonseg_jax.paths.row_pieces import cut_at_rows
from moonseg_jax.paths.winding import largest_winding, winding
from moonseg_jax.types import EdgeBatch

FillRule = Literal["nonzero", "evenodd", "union"]

_BAND = 48
"""Rows walked together where memory is spared: the fewer, the closer the steps to what each row needs."""
_FARTHEST = 1e6
"""Frames; coordinates beyond are taken as this far."""


def coverage(
    edges: EdgeBatch,
    size: int | tuple[int, int],
    frame: Float[Array, "N 4"] | None = None,
    rule: FillRule = "nonzero",
    at_once: int | None = None,
) -> Float[Array, "N height width"]:
    """Share of every pixel that the subpaths cover, in [0, 1].

    `nonzero` is `min(|w|, 1)` and `evenodd` the distance of w to the nearest even number, where w is the
    winding number averaged over the pixel: inside pixels are exact, and so are border pixels that hold one
    boundary which does not cross another. Holes are subpaths of the opposite direction. `union` applies
    `nonzero` to every subpath alone and takes the maximum: directions do not matter and there are no holes.

    A path without valid edges, or with a point or a frame that is not finite, covers nothing. The derivative with
    respect to the points is exact wherever coverage has one.

    Args:
      edges: closed subpaths, points in units of the image; the edges of a subpath follow one another.
      size: pixels along each side of the result, or its height and width.
      frame: x0, y0, x1, y1 in units of the image: the rectangle that is stretched to the result; default
        the whole image. Parts outside are cut off; a frame without area gives zeros.
      rule: what counts as inside.
      at_once: paths drawn together, the others wait; default all. On CPUs it is faster when their results fit
        the caches; the result is the same.
    """
    if rule not in ("nonzero", "evenodd", "union"):
        raise ValueError(f"rule {rule!r} is not one of nonzero, evenodd, union")
    height, width = (size, size) if isinstance(size, int) else size
    paths = edges.valid.shape[0]
    if at_once is None:
        return _draw(edges, frame, (height, width), rule, height, 0)
    bands = -(-height // _BAND)
    rows = -(-height // bands)

    def draw_block(block: tuple[EdgeBatch, Array | None]) -> Array:
        drawn = jax.lax.map(lambda first: _draw(*block, (height, width), rule, rows, first), jnp.arange(bands) * rows)
        return jnp.moveaxis(drawn, 0, 1).reshape(-1, bands * rows, width)[:, :height]

    blocks = -(-paths // at_once)

    def in_blocks(leaf: Array) -> Array:
        padded = jnp.pad(leaf, [(0, blocks * at_once - paths)] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(blocks, at_once, *leaf.shape[1:])

    drawn = jax.lax.map(draw_block, jax.tree.map(in_blocks, (edges, frame)))
    return drawn.reshape(-1, height, width)[:paths]


def _draw(
    edges: EdgeBatch,
    frame: Float[Array, "N 4"] | None,
    size: tuple[int, int],
    rule: FillRule,
    rows: int,
    first: int | Int[Array, ""],
) -> Float[Array, "N rows width"]:
    """Coverage of some rows of the result."""
    width = size[1]
    if edges.valid.shape[1] == 0:
        return jnp.zeros((edges.valid.shape[0], rows, width), jnp.float32)
    pieces, touched = cut_at_rows(_in_pixels(edges, frame, *size), rows, first)
    match rule:
        case "nonzero":
            return jnp.minimum(jnp.abs(winding(pieces, touched, width)), 1.0)
        case "evenodd":
            total = winding(pieces, touched, width)
            return jnp.abs(total - 2.0 * jnp.round(total / 2.0))
        case "union":
            starts = jnp.pad(edges.subpath[:, 1:] != edges.subpath[:, :-1], ((0, 0), (1, 0)))
            return jnp.minimum(largest_winding(pieces, touched, jnp.cumsum(starts, axis=1), width), 1.0)
        case _:
            assert_never(rule)


def _in_pixels(edges: EdgeBatch, frame: Float[Array, "N 4"] | None, height: int, width: int) -> Float[Array, "N E 2 2"]:
    """Points in pixels of the frame; edges that are not valid, or whose path is not finite, shrink to one point."""
    points = edges.points.astype(jnp.float32)
    drawn = jnp.all(jnp.isfinite(points) | ~edges.valid[..., None, None], axis=(1, 2, 3))
    if frame is not None:
        extent = frame[:, 2:] - frame[:, :2]
        drawn &= jnp.all((extent >= jnp.finfo(jnp.float32).tiny) & jnp.isfinite(extent), axis=-1)
        drawn &= jnp.all(jnp.isfinite(frame), axis=-1)
    valid = (edges.valid & drawn[:, None])[..., None, None]
    points = jnp.where(valid, points, 0.0)
    if frame is not None:
        corner, extent = (jnp.where(drawn[:, None], value, 1.0)[:, None, None] for value in (frame[:, :2], extent))
        points = (points - corner) / extent
    points = jnp.clip(points, -_FARTHEST, _FARTHEST)
    return jnp.where(valid, points * (width if width == height else jnp.array([width, height], jnp.float32)), 0.0)
