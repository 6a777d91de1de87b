"""Computing those of many rows that are wanted, some per turn, for as long as any are left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from moonseg_jax.engines import most_of_engines


def set_wanted(values: Any, wanted: Bool[Array, " n"], compute: Callable[[Int[Array, " c"]], Any], at_once: int) -> Any:
    """`values` with the wanted rows computed; only these cost anything, but for filling up the last turn.

    Args:
      values: arrays of n rows.
      wanted: which of them to compute.
      compute: numbers of some rows → these rows.
      at_once: c, rows per turn.
    """
    count, number = len(wanted), most_of_engines(jnp.sum(wanted))
    order = jnp.nonzero(wanted, size=count + at_once, fill_value=count)[0]

    def turn(carry: tuple[Array, Any]) -> tuple[Array, Any]:
        first, done = carry
        which = jax.lax.dynamic_slice_in_dim(order, first, at_once)
        fresh = compute(jnp.minimum(which, count - 1))
        return first + at_once, jax.tree.map(lambda leaf, row: leaf.at[which].set(row, mode="drop"), done, fresh)

    return jax.lax.while_loop(lambda carry: carry[0] < number, turn, (jnp.zeros_like(number), values))[1]
