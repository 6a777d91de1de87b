"""Tokens of completions → boxes and edges, on device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import PathConfig, RegionConfig
from moonseg_jax.paths.boxes import coordinate_from_bin, size_from_bin
from moonseg_jax.paths.closing import closed_edges
from moonseg_jax.paths.flatten_on_device import edges_from_curves
from moonseg_jax.paths.pen import CurveTables
from moonseg_jax.paths.vocabulary import COMMANDS, TokenTables
from moonseg_jax.types import EdgeBatch

_MOVE = COMMANDS.index("M")


def box_from_tokens(
    token_ids: Int[Array, "N T"], bins: Int[Array, "N T 2"], region: RegionConfig, paths: PathConfig
) -> Float[Array, "N 4"]:
    """Box `cx, cy, w, h` in units of the image: the first two coordinates and the first size.

    A completion without all three has no box and gets zeros, which draw nothing.

    Args:
      token_ids: completions; tokens past the end must be EOS.
      bins: coordinate bin in the first entry, (width, height) bins at a size.
      region: the bins' scales.
      paths: names the coordinate and size tokens.
    """
    is_coordinate = token_ids == paths.coord_token
    is_size = token_ids == paths.size_token
    nth_coordinate = jnp.cumsum(is_coordinate, axis=1)
    cx, cy = (_first_bins(bins, is_coordinate & (nth_coordinate == nth))[:, 0] for nth in (1, 2))
    centre = coordinate_from_bin(jnp.stack([cx, cy], axis=-1), region)
    extent = size_from_bin(_first_bins(bins, is_size), region)
    complete = (nth_coordinate[:, -1] >= 2) & is_size.any(axis=1)
    return jnp.where(complete[:, None], jnp.concatenate([centre, extent], axis=-1), 0.0)


def _first_bins(bins: Int[Array, "N T 2"], here: Bool[Array, "N T"]) -> Int[Array, "N 2"]:
    return jnp.take_along_axis(bins, jnp.argmax(here, axis=1)[:, None, None], axis=1)[:, 0]


def edges_from_tokens(
    token_ids: Int[Array, "N T"],
    lengths: Int[Array, " N"],
    box: Float[Array, "N 4"],
    tables: TokenTables,
    max_edges: int | None = None,
) -> EdgeBatch:
    """Edges of what completions draw, in units of the image.

    `CurveTables` are read as `flatten_on_device.edges_from_curves` does. Other tables mean polygons: absolute `M`,
    `L`, `Z` with explicit or implicit line-tos. A number and the number right after it are a vertex, counted from
    the last letter; an odd last number is dropped. Every vertex has one edge, to the next vertex of its subpath or,
    from the last one, back to the first, so open subpaths are closed. A point is `cx - w/2 + number/960 w`: the box
    is not clipped for this. A vertex before the first `M` breaks the whole path, which then has no edges.

    Args:
      token_ids: completions.
      lengths: tokens of each that count.
      box: `cx, cy, w, h` of each, see `box_from_tokens`.
      tables: what tokens mean, and how much of the dialect is read.
      max_edges: E, default T // 2, which no completion of polygons exceeds; see `edges_from_curves` for others.
    """
    if isinstance(tables, CurveTables):
        return edges_from_curves(token_ids, lengths, box, tables, max_edges).edges
    edges = max_edges or token_ids.shape[1] // 2
    within = jnp.arange(token_ids.shape[1]) < lengths[:, None]
    values = jnp.where(within, tables.values[token_ids], -1)
    commands = jnp.where(within, tables.commands[token_ids], -1)
    is_vertex, numbers = _vertices(values, commands >= 0)
    subpath = jnp.cumsum(commands == _MOVE, axis=1) - 1
    broken = jnp.any(is_vertex & (subpath < 0), axis=1, keepdims=True)
    is_vertex &= ~broken

    slot = jnp.where(is_vertex, jnp.cumsum(is_vertex, axis=1) - 1, edges)
    numbers = jax.vmap(lambda at, value: jnp.zeros((edges, 2)).at[at].set(value, mode="drop"))(slot, numbers)
    subpath = jax.vmap(lambda at, value: jnp.full(edges, -1).at[at].set(value, mode="drop"))(slot, subpath)
    valid = jnp.arange(edges) < is_vertex.sum(axis=1, keepdims=True)
    return closed_edges(numbers, subpath, valid, box)


def _vertices(
    values: Int[Array, "N T"], is_command: Bool[Array, "N T"]
) -> tuple[Bool[Array, "N T"], Float[Array, "N T 2"]]:
    """Marks tokens that complete a vertex (the second number of each pair), and gives the pair."""
    is_number = values >= 0
    count = jnp.cumsum(is_number, axis=1)
    count_at_command = jax.lax.cummax(jnp.where(is_command, count, 0), axis=1)
    is_second = is_number & ((count - count_at_command) % 2 == 0)
    before = jnp.pad(values, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    return is_second & (before >= 0), jnp.stack([before, values], axis=-1).astype(jnp.float32)
