"""Vertices of subpaths → closed edges at their place in the image, on device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import PATH_UNITS
from moonseg_jax.types import EdgeBatch


def closed_edges(
    vertices: Float[Array, "N E 2"],
    subpath: Int[Array, "N E"],
    valid: Bool[Array, "N E"],
    box: Float[Array, "N 4"],
) -> EdgeBatch:
    """One edge per vertex: to the next vertex of its subpath or, from the last one, back to the first.

    A point is `cx - w/2 + number/960 w`: the box is not clipped for this.

    Args:
      vertices: (x, y) in path units, those of a subpath consecutive; the valid ones come first.
      subpath: number of the subpath of each, ascending; negative where not valid.
      valid: which vertices there are.
      box: `cx, cy, w, h` of each path, in units of the image.
    """
    start = box[:, None, :2] - box[:, None, 2:] / 2 + vertices / PATH_UNITS * box[:, None, 2:]
    end = jnp.take_along_axis(start, _next_vertex(subpath)[..., None], axis=1)
    points = jnp.where(valid[..., None, None], jnp.stack([start, end], axis=2), 0.0)
    return EdgeBatch(points=points, valid=valid, subpath=jnp.maximum(subpath, 0))


def _next_vertex(subpath: Int[Array, "N E"]) -> Int[Array, "N E"]:
    """Index of the vertex an edge ends at: the next one, or the subpath's first from its last."""
    index = jnp.arange(subpath.shape[1])
    is_first = jnp.pad(subpath[:, 1:] != subpath[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    is_last = jnp.pad(subpath[:, 1:] != subpath[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    first = jax.lax.cummax(jnp.where(is_first, index, 0), axis=1)
    return jnp.where(is_last, first, index + 1)
