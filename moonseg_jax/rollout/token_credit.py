"""Rollouts → the reward earned at each token: prefixes of paths drawn and judged as if they had ended there."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.model.turns import set_wanted
from moonseg_jax.paths.decode import edges_from_tokens
from moonseg_jax.paths.vocabulary import TokenTables
from moonseg_jax.rewards import RewardSpec
from moonseg_jax.rewards.potential import closings, increments
from moonseg_jax.rewards.reward import reward_of
from moonseg_jax.rollout.score import Completions, Drawn, judge
from moonseg_jax.types import FINISH_CLOSED, Rollouts, Scored

PREFIXES_AT_ONCE = 16
"""Prefixes judged together. Few, because the last lot is filled up with work for nothing."""


def with_token_reward(
    scored: Scored,
    rollouts: Rollouts,
    drawn: Drawn,
    tables: TokenTables,
    truth: Bool[Array, "Q R R"],
    reference_lengths: Int[Array, " Q"],
    reward: RewardSpec,
    step: Int[Array, ""] | int,
) -> Scored:
    """Scores with the reward placed on tokens, as increments of the shaped reward (see `rewards.potential`).

    A `Z` right before the EOS has the whole path's reward and is not drawn again: paths of one subpath cost nothing
    more. Every other `Z` costs one drawing; their number is the batch's own, not its largest possible.

    Args:
      scored: of the whole paths, by the same reward at the same step.
      rollouts: see `score`; so are the other arrays.
      drawn: see there.
      tables: what tokens mean.
      truth: see there.
      reference_lengths: see there.
      reward: see there.
      step: see there.
    """
    rows, tokens = rollouts.token_ids.shape
    group = rows // truth.shape[0]
    lengths, position = rollouts.lengths[:, None], jnp.arange(tokens)
    closed = closings(rollouts.token_ids, rollouts.lengths, tables)
    is_whole = (position == lengths - 2) & (rollouts.finish == FINISH_CLOSED)[:, None]
    to_draw = closed & (position < lengths - 1) & ~is_whole

    def worth(places: Int[Array, " P"]) -> Float[Array, " P"]:
        row, at = jnp.divmod(places, tokens)
        box, prompt = drawn.box[row], row // group
        prefixes = Completions(
            truth=truth[prompt], box=box, length=at + 2, reference_length=reference_lengths[prompt],
            finish=jnp.full_like(row, FINISH_CLOSED),
            edges=edges_from_tokens(rollouts.token_ids[row], at + 1, box, tables),
        )  # fmt: skip
        return reward_of(reward, judge(reward.terms, prefixes), step)

    start = jnp.where(closed, scored.reward[:, None], 0.0)
    potential = set_wanted(start.reshape(-1), to_draw.reshape(-1), worth, PREFIXES_AT_ONCE).reshape(rows, tokens)
    token_reward = increments(scored.reward, potential, closed, rollouts.lengths)
    return dataclasses.replace(scored, token_reward=token_reward)
