"""Who is credited with what: advantages, learned tokens and flat groups of a whole batch of rollouts."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.learner.advantages import flat_groups
from moonseg_jax.learner.policy_objective import advantages_under, learned_under, token_advantages_under
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.learner.token_sums import number_of
from moonseg_jax.paths.vocabulary import TokenTables
from moonseg_jax.rewards.potential import closings, stages
from moonseg_jax.types import SAMPLED, PromptBatch, Rollouts, Scored, SumAndCount


class Credit(NamedTuple):
    """Rows as in `Rollouts`. Of the whole batch: a part of it has other means and deviations."""

    advantage: Float[Array, " N"] | Float[Array, "N T"]
    """Per token where rewards are placed on tokens."""
    learned: Bool[Array, "N T"]
    sampled: Bool[Array, " N"] | None
    """False for injected rows; None where there can be none."""
    flat: SumAndCount
    """Groups whose samples all have the same raw IoU, of the groups of real prompts."""


class Comparison(NamedTuple):
    """G completions of each of Q prompts beside each other, as whole paths."""

    advantage: Float[Array, "Q G"]
    counted: Bool[Array, "Q G"]
    """Samples of groups that are not flat."""
    flat: Bool[Array, "Q 1"]
    injected: Bool[Array, "Q G"] | None
    """Given completions that are learned from; None where there can be none."""


def comparison(
    loss: PolicyLossConfig,
    iou: Float[Array, "Q G"],
    reward: Float[Array, "Q G"],
    lengths: Int[Array, "Q G"],
    source: Int[Array, "Q G"] | None,
    valid: Bool[Array, "Q 1"],
    budget: int,
) -> Comparison:
    """What every completion is worth beside the others of its prompt.

    Injected rows take no part in the baselines, scales and flatness of the policy's samples; an empty one is nothing.

    Args:
      loss: how rewards become advantages.
      iou: raw.
      reward: shaped.
      lengths: tokens, EOS included.
      source: see `Rollouts`; None: all were sampled.
      valid: False for padding prompts.
      budget: most tokens of a completion.
    """
    compared, injected = jnp.broadcast_to(valid, iou.shape), None
    if source is not None:
        own = source == SAMPLED
        compared, injected = compared & own, valid & ~own & (lengths > 0)
    flat = flat_groups(iou, compared)[:, None]
    counted = compared & ~flat
    return Comparison(
        advantage=advantages_under(loss, reward, lengths, counted, budget, injected, compared),
        counted=counted, flat=flat, injected=injected,
    )  # fmt: skip


def credit(
    loss: PolicyLossConfig, batch: PromptBatch, rollouts: Rollouts, scored: Scored, budget: int, tables: TokenTables
) -> Credit:
    """Compares the samples of every prompt.

    Injected rows take no part in the baselines, scales and flatness of the policy's samples, which learn what they
    would without them, and are learned from whether their group is flat or not; an empty one is nothing.

    Where rewards are placed on tokens, samples are credited token by token (see `stage_credit`), injected rows as a
    whole.

    Args:
      loss: how rewards become advantages.
      batch: whose prompts are real.
      rollouts: samples of one prompt consecutive.
      scored: the same rows judged.
      budget: most tokens of a completion, T.
      tables: what tokens mean; read only where rewards are placed on tokens.

    Raises:
      ValueError: rewards are placed on tokens, and the loss compares or scales them in a way that needs whole paths.
    """
    prompts = batch.valid.size
    valid = batch.valid.reshape(prompts, 1)
    iou, reward, lengths = (rows.reshape(prompts, -1) for rows in (scored.iou, scored.reward, rollouts.lengths))
    source = None if rollouts.source is None else rollouts.source.reshape(prompts, -1)
    advantage: Array
    advantage, counted, flat, injected = comparison(loss, iou, reward, lengths, source, valid, budget)
    if scored.token_reward is not None:
        of_tokens = _token_advantages(loss, rollouts, scored.token_reward, counted, budget, tables)
        if injected is not None:
            of_tokens = jnp.where(injected[..., None], advantage[..., None], of_tokens)
        advantage = of_tokens
    learning = counted if injected is None else counted | injected
    return Credit(
        advantage=advantage.reshape(-1, *advantage.shape[2:]),
        learned=learned_under(loss, rollouts.lengths, learning.reshape(-1), budget, rollouts.budgets),
        sampled=None if rollouts.source is None else rollouts.source == SAMPLED,
        flat=(number_of(valid & flat), number_of(valid)),
    )


def _token_advantages(
    loss: PolicyLossConfig,
    rollouts: Rollouts,
    token_reward: Float[Array, "N T"],
    counted: Bool[Array, "Q G"],
    budget: int,
    tables: TokenTables,
) -> Float[Array, "Q G T"]:
    stage = stages(closings(rollouts.token_ids, rollouts.lengths, tables))
    earned, stage = (rows.reshape(*counted.shape, -1) for rows in (token_reward, stage))
    return token_advantages_under(loss, earned, stage, rollouts.lengths.reshape(counted.shape), counted, budget)
