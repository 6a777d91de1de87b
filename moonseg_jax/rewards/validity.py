"""Axis 4, validity: what an answer costs that is none. Values lie in [-1, 0]."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.types import FINISH_BUDGET, FINISH_INVALID


def validity_cost(
    finish: Int[Array, "*batch"],
    missing: Bool[Array, "*batch"],
    broken: float,
    out_of_budget: float,
    empty: float,
) -> Float[Array, "*batch"]:
    """Less than 0 for an answer that is no outline; where several costs apply, the largest.

    Constrained decoding leaves nothing broken, and a grammar that keeps room for the end leaves nothing out of budget.

    Args:
      finish: finish reason, see `types`.
      missing: nothing is drawn though the phrase has a target.
      broken: cost of text that cannot be read.
      out_of_budget: cost of not having come to an end.
      empty: cost of drawing nothing.
    """
    costs = [
        jnp.where(finish == FINISH_INVALID, broken, 0.0),
        jnp.where(finish == FINISH_BUDGET, out_of_budget, 0.0),
        jnp.where(missing, empty, 0.0),
    ]
    return 0.0 - jnp.maximum(jnp.maximum(costs[0], costs[1]), costs[2])
