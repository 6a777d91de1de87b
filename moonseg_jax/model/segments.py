"""Keys and values that several rows share: an image, a prompt.

Letters: N rows, T queries, S keys, H heads, d head width, M segments, C seats at them, G = C/M seats per segment.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.model.attention_parts import WORTH_CHOOSING, Part, in_turns, over_keys

MOST_TURNS = 4
"""Segments with free seats among them are read in at most so many turns, which skip the empty ones."""


@flax.struct.dataclass
class Segment:
    """Keys and values that several rows share, or the fresh ones of every row.

    Heads come before keys: a product over one key per step then reads memory in order.
    """

    keys: Float[Array, "... M H S d"]
    values: Float[Array, "... M H S d"]
    valid: Bool[Array, "M S"] | None
    """Which keys exist; None means all of them."""


@flax.struct.dataclass
class Seats:
    """Which rows share which segment, where rows are in no order.

    The seats of a segment are consecutive; every kind of segment has the same number of seats in all. A row sits on
    one seat; free seats hold any row, and what they compute is read by nobody.
    """

    row_of_seat: Int[Array, " C"]
    seat_of_row: Int[Array, " N"]
    taken: Bool[Array, " C"]


def over_segment(queries: Float[Array, "N H T d"], segment: Segment, seats: Seats | None) -> Part:
    """Attention to all valid keys of shared segments: queries come to the keys, which are never copied to rows.

    Args:
      queries: of all rows.
      segment: M of them.
      seats: who reads which; None means that the rows of a segment are consecutive.

    Returns:
      a part with rows [N, H, T].
    """
    heads, fresh, width = queries.shape[1:]
    seated = queries if seats is None else queries[seats.row_of_seat]
    count = len(segment.keys)
    asking = jnp.swapaxes(seated.reshape(count, -1, heads, fresh, width), 1, 2).reshape(count, heads, -1, width)
    valid = None if segment.valid is None else segment.valid[:, None, None, :]

    def of_some(which: Int[Array, " c"]) -> Part:
        seen = None if valid is None else valid[which]
        return over_keys(asking[which], segment.keys[which], segment.values[which], seen)

    if seats is None or count <= MOST_TURNS or segment.keys.size < WORTH_CHOOSING:
        part = over_keys(asking, segment.keys, segment.values, valid)
    else:
        part = in_turns(of_some, jnp.any(seats.taken.reshape(count, -1), axis=-1), -(-count // MOST_TURNS))

    def to_rows(leaf_MHq: Array) -> Array:
        leaf_MHGT = leaf_MHq.reshape(count, heads, -1, fresh, *leaf_MHq.shape[3:])
        leaf_CHT = jnp.swapaxes(leaf_MHGT, 1, 2).reshape(-1, *leaf_MHGT.shape[1:2], *leaf_MHGT.shape[3:])
        return leaf_CHT if seats is None else leaf_CHT[seats.seat_of_row]

    return jax.tree.map(to_rows, part)
