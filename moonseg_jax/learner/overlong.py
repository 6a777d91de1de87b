"""Overlong completions, counted in tokens: what they cost, and leaving out those that ran out of budget."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def soft_overlong_punishment(
    lengths: Int[Array, "*samples"], max_tokens: int, buffer_tokens: int
) -> Float[Array, "*samples"]:
    """What is added to the reward of a long completion (Yu et al. 2025, DAPO, eq. 13).

    0 up to `max_tokens - buffer_tokens`, then falling linearly, -1 from `max_tokens` on.

    Args:
      lengths: tokens per completion, EOS included.
      max_tokens: the budget.
      buffer_tokens: length of the slope at the budget's end, from 1 to `max_tokens`.
    """
    return jnp.clip((max_tokens - buffer_tokens - lengths) / buffer_tokens, -1.0, 0.0)


def within_budget(lengths: Int[Array, "*samples"], budgets: Int[Array, "*samples"] | int) -> Bool[Array, "*samples"]:
    """Completions that left some of their budget: neither cut off nor forced to close at its last token.

    Those that did not are left out of the loss by overlong filtering (Yu et al. 2025, DAPO, §3.4); their rewards
    stay in the baselines of their groups.
    """
    return lengths < budgets
