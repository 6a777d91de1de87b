"""Curves → edges, on device: static shapes, a stated tolerance, and as many parts as it takes where it matters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.paths.closing import closed_edges
from moonseg_jax.paths.pen import CurveTables, Segments, read_segments
from moonseg_jax.types import EdgeBatch

TOLERANCE = 0.5
"""Farthest a curve may stray from its edges, in path units (960 across the box): the rounding of path numbers."""

EDGES_PER_TOKEN = 4
"""Room for edges by default. A disc as large as the box takes 77, and 29 tokens."""


class FlattenedPaths(NamedTuple):
    """What completions draw, as edges."""

    edges: EdgeBatch
    deviation: Float[Array, " N"]
    """Farthest the curves can stray from their edges, in path units: at most the tolerance, unless the edges of
    that path did not suffice."""
    whole: Bool[Array, " N"]
    """Whether the completion was read to its end without error."""


def edges_from_curves(
    token_ids: Int[Array, "N T"],
    lengths: Int[Array, " N"],
    box: Float[Array, "N 4"],
    tables: CurveTables,
    max_edges: int | None = None,
    tolerance: float = TOLERANCE,
) -> FlattenedPaths:
    """Edges of all that the official dialect can draw, in units of the image (see `pen.read_segments`).

    Lines stay whole. A curve is divided evenly into as many parts as keep it within the tolerance (Wang's formula);
    where a path needs more edges than there are, all its curves get coarser alike. Open subpaths are closed.

    Args:
      token_ids: completions.
      lengths: tokens of each that count.
      box: `cx, cy, w, h` of each, see `decode.box_from_tokens`.
      tables: what tokens mean.
      max_edges: E, at least T // 2; default 4 T.
      tolerance: in path units.

    Raises:
      ValueError: `max_edges` is less than T // 2.
    """
    edges = max_edges or EDGES_PER_TOKEN * token_ids.shape[1]
    if edges < token_ids.shape[1] // 2:
        raise ValueError(f"max_edges is {edges}, but {token_ids.shape[1]} tokens can draw a line with every pair")
    segments, whole = read_segments(token_ids, lengths, tables)
    bend = _bend(segments)
    parts = _parts(segments, bend, edges, tolerance)
    deviation = jnp.max(0.75 * bend / jnp.maximum(parts, 1) ** 2, axis=1, initial=0.0)
    vertices, subpath, valid = jax.vmap(_vertices, in_axes=(0, 0, None))(segments, parts, edges)
    return FlattenedPaths(closed_edges(vertices, subpath, valid, box), deviation, whole)


def _bend(segments: Segments) -> Float[Array, "N T"]:
    """Largest second difference of the control points; 0 for lines."""
    bend = jnp.linalg.norm(jnp.diff(segments.points, n=2, axis=2), axis=-1).max(axis=2)
    return jnp.where(segments.valid & ~segments.is_line, bend, 0.0)


def _parts(segments: Segments, bend: Float[Array, "N T"], edges: int, tolerance: float) -> Int[Array, "N T"]:
    """Parts of every segment: those wanted, or where they are too many as large a share of them as there is room."""
    extra = jnp.maximum(jnp.ceil(jnp.sqrt(0.75 * bend / tolerance)), 1.0) - 1.0
    least = segments.valid.astype(jnp.int32) + (segments.valid & segments.is_first)
    room = edges - least.sum(axis=1, keepdims=True)
    wanted = extra.sum(axis=1, keepdims=True)
    # A hair less than the share, so that the sum of the rounded products stays within the room.
    share = jnp.where(wanted > room, room / jnp.maximum(wanted, 1.0) * (1 - 1e-5), 1.0)
    return jnp.where(segments.valid, 1 + jnp.floor(extra * share).astype(jnp.int32), 0)


def _vertices(
    segments: Segments, parts: Int[Array, " T"], edges: int
) -> tuple[Float[Array, "E 2"], Int[Array, " E"], Bool[Array, " E"]]:
    """Vertices of one path in order, their subpaths, and which there are: ends of all parts, and starts of subpaths."""
    leading = segments.valid & segments.is_first
    ends = jnp.cumsum(parts + leading)
    slot = jnp.arange(edges)
    valid = slot < ends[-1]
    segment = jnp.minimum(jnp.searchsorted(ends, slot, side="right"), len(ends) - 1)
    part = slot - ends[segment] + parts[segment] + 1
    t = (part / jnp.maximum(parts[segment], 1))[:, None]
    s = 1.0 - t
    p0, p1, p2, p3 = jnp.moveaxis(segments.points[segment], 1, 0)
    points = s**3 * p0 + 3 * s * s * t * p1 + 3 * s * t * t * p2 + t**3 * p3
    points = jnp.where(t == 0, p0, jnp.where(t == 1, p3, points))
    return jnp.where(valid[:, None], points, 0.0), jnp.where(valid, segments.subpath[segment], -1), valid
