"""Edges cut at the rows of pixels: within one row an edge's share of every pixel has a closed form."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_LEAST_WIDTH = 1e-6
"""Pixels; narrower pieces are taken as this wide, which changes a coverage by less than it."""
_LEAST_RISE = 1e-12
"""Pixels; edges that rise less are level and cover nothing, so that slopes and their derivatives stay finite."""


@flax.struct.dataclass
class RowPieces:
    """One edge (or a row of edges) cut at H rows of pixels, in pixels."""

    height: Float[Array, "*edges H"]
    """Downwards positive; 0 in rows the edge does not enter."""
    left: Float[Array, "*edges H"]
    right: Float[Array, "*edges H"]


def cut_at_rows(
    points: Float[Array, "N E 2 2"], rows: int, first: int | Int[Array, ""] = 0
) -> tuple[RowPieces, Bool[Array, "N E H"]]:
    """Cuts edges at the rows of pixels.

    Args:
      points: start and end, (x, y) each, in pixels; finite, and their squares too.
      rows: H.
      first: number of the first of these rows.

    Returns:
      The pieces, [N, E, H] each, and which rows an edge enters or touches: only there do its points matter, to
      the value or to a derivative.
    """
    x, y = points[..., 0, None], points[..., 1, None]
    rise = y[..., 1, :] - y[..., 0, :]
    level = jnp.abs(rise) < _LEAST_RISE
    slope = (x[..., 1, :] - x[..., 0, :]) / jnp.where(level, 1.0, rise)
    row = jnp.arange(rows, dtype=jnp.float32) + first
    enters, leaves = jnp.clip(y[..., 0, :], row, row + 1), jnp.clip(y[..., 1, :], row, row + 1)
    x_enters = x[..., 0, :] + (enters - y[..., 0, :]) * slope
    # A level edge sweeps all of its length as soon as one of its ends moves.
    x_leaves = jnp.where(level, x[..., 1, :], x[..., 0, :] + (leaves - y[..., 0, :]) * slope)
    touched = (jnp.min(y, axis=-2) <= row + 1) & (jnp.max(y, axis=-2) >= row)
    x_enters, x_leaves = jnp.where(touched, x_enters, 0.0), jnp.where(touched, x_leaves, 0.0)
    pieces = RowPieces(
        height=leaves - enters, left=jnp.minimum(x_enters, x_leaves), right=jnp.maximum(x_enters, x_leaves)
    )
    return pieces, touched


def piece_of_rows(pieces: RowPieces, edge: Int[Array, "N H"]) -> RowPieces:
    """For every row the piece of one edge, [N, H]; without height where there is no such edge (number E)."""
    edges = pieces.height.shape[1]
    index = edge[:, None]
    height, left, right = (
        jnp.take_along_axis(field, index, axis=1, mode="clip")[:, 0]
        for field in (pieces.height, pieces.left, pieces.right)
    )
    return RowPieces(height=jnp.where(edge < edges, height, 0.0), left=left, right=right)


def covered(piece: RowPieces, columns: int) -> Float[Array, "N H W"]:
    """Signed area to the right of one piece a row, in every pixel.

    In a row it is `height` times the mean of `clip(j + 1 - x, 0, 1)` over x from left to right.
    """
    column = jnp.arange(columns, dtype=jnp.float32)
    width = jnp.maximum(piece.right - piece.left, _LEAST_WIDTH)[..., None]
    from_left = column - piece.left[..., None]
    passed, passing = jnp.clip(from_left, 0.0, width), jnp.clip(from_left + 1.0, 0.0, width)
    under = (passing * passing - passed * passed) * (0.5 / width)
    return piece.height[..., None] * (under + jnp.clip(column + 1.0 - piece.right[..., None], 0.0, 1.0))
