"""Axis 8, credit while training: a path's reward as increments, paid where each subpath is closed.

The potential of a prefix is the reward of the path had it ended there, and that of nothing is 0: differences of a
potential telescope (Ng et al. 1999, "Policy invariance under reward transformations", without discount).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.paths.vocabulary import COMMANDS, TokenTables

_CLOSES = (COMMANDS.index("Z"), COMMANDS.index("z"))


def closings(token_ids: Int[Array, "N T"], lengths: Int[Array, " N"], tables: TokenTables) -> Bool[Array, "N T"]:
    """Tokens that close a subpath: `Z` in either case, within the completion."""
    within = jnp.arange(token_ids.shape[1]) < lengths[:, None]
    return within & jnp.isin(tables.commands[token_ids], jnp.asarray(_CLOSES))


def stages(closed: Bool[Array, "N T"]) -> Int[Array, "N T"]:
    """Subpaths closed before each token: known before it is drawn, so that a baseline may depend on it."""
    return jnp.cumsum(closed, axis=1) - closed


def increments(
    reward: Float[Array, " N"], potential: Float[Array, "N T"], closed: Bool[Array, "N T"], lengths: Int[Array, " N"]
) -> Float[Array, "N T"]:
    """Rewards of tokens: at each closing what the potential gained there, at the last token the rest.

    They sum to the path's reward, whatever the potentials are. Completions without tokens earn nothing.

    Args:
      reward: of whole paths.
      potential: of the prefix up to each closing; read nowhere else.
      closed: see `closings`.
      lengths: tokens of each completion.

    Raises:
      ValueError: potential and closings are not of one shape [N, T], or reward and lengths not [N].
    """
    if potential.ndim != 2 or closed.shape != potential.shape or {reward.shape, lengths.shape} != {closed.shape[:1]}:
        raise ValueError(
            f"potential {potential.shape} and closed {closed.shape} must be [paths, tokens], reward {reward.shape} and "
            f"lengths {lengths.shape} [paths]"
        )
    position = jnp.arange(potential.shape[1])
    is_last = position == lengths[:, None] - 1
    paid = closed | is_last
    worth = jnp.where(is_last, reward[:, None], potential)
    latest = jax.lax.cummax(jnp.where(paid, position, -1), axis=1)
    before = jnp.pad(latest, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    owned = jnp.where(before < 0, 0.0, jnp.take_along_axis(worth, jnp.maximum(before, 0), axis=1))
    return jnp.where(paid, worth - owned, 0.0)


def on_last_token(reward: Float[Array, " N"], lengths: Int[Array, " N"], tokens: int) -> Float[Array, "N {tokens}"]:
    """The whole reward at the end: every token of the path has it as its return."""
    return jnp.where(jnp.arange(tokens) == lengths[:, None] - 1, reward[:, None], 0.0)
