"""Policy-gradient learning from rollouts: advantages, the clipped loss, and its gradient step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from moonseg_jax.learner.forward import completion_logits
from moonseg_jax.learner.sft import sft_sums
from moonseg_jax.learner.state import LearnerState, apply_gradients
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.paths.grammar import Grammar
from moonseg_jax.paths.vocabulary import TokenTables
from moonseg_jax.rollout.log_probs import TokenStatistics, token_statistics
from moonseg_jax.types import PromptBatch, Rollouts, Scored, SumAndCount, TargetBatch

FLAT = 1e-6
"""A group whose raw IoUs lie closer together than this teaches nothing."""


def advantages(reward: Float[Array, "Q G"], baseline: Literal["leave-one-out", "group-mean"]) -> Float[Array, "Q G"]:
    """Reward less the mean of the other samples of its group (Kool et al. 2019), or of all of them.

    No division by the standard deviation: IoU is continuous, and nearly equal rewards would amplify noise.
    """
    centred = reward - reward.mean(axis=1, keepdims=True)
    group = reward.shape[1]
    return centred * group / (group - 1) if baseline == "leave-one-out" else centred


def flat_groups(iou: Float[Array, "Q G"]) -> Bool[Array, " Q"]:
    """Groups whose raw IoUs are all equal; judged on raw IoU, never on the shaped reward."""
    return iou.max(axis=1) - iou.min(axis=1) < FLAT


class PolicySums(NamedTuple):
    """Of one batch of tokens."""

    loss: SumAndCount
    clipped: SumAndCount
    mismatch: SumAndCount
    """k3 estimate of KL(old || new) per token."""


def clipped_policy_loss(
    log_probs: Float[Array, "N T"],
    old_log_probs: Float[Array, "N T"],
    advantage: Float[Array, " N"],
    learned: Bool[Array, "N T"],
    clip_low: float,
    clip_high: float,
) -> PolicySums:
    """Clipped surrogate with token-level ratios (Schulman et al. 2017, eq. 7), summed over a sequence's tokens.

    Args:
      log_probs: under the current policy.
      old_log_probs: under the policy that sampled.
      advantage: one per sequence.
      learned: which tokens count.
      clip_low: ratio is clipped to at least 1 - clip_low.
      clip_high: and to at most 1 + clip_high.

    Returns:
      Sums over tokens; the loss's count is the number of sequences with any learned token.
    """
    difference = jnp.where(learned, log_probs - old_log_probs, 0.0)
    ratio = jnp.exp(difference)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    gain = jnp.minimum(ratio * advantage[:, None], clipped * advantage[:, None])
    tokens = jnp.sum(learned).astype(jnp.float32)
    sequences = jnp.sum(jnp.any(learned, axis=1)).astype(jnp.float32)

    def total(values: Array) -> Array:
        return jnp.sum(jnp.where(learned, values, 0.0))

    return PolicySums(
        loss=(-total(gain), sequences),
        clipped=(total((clipped != ratio).astype(jnp.float32)), tokens),
        mismatch=(total(ratio - 1.0 - difference), tokens),
    )


def rollout_statistics(
    model: Moondream,
    grammar: Grammar,
    params: Any,
    batch: PromptBatch,
    rollouts: Rollouts,
    temperature: float,
) -> TokenStatistics:
    """Log-probabilities [N, T] the learner gives to sampled tokens: same mask, same temperature, same experts."""
    paths = model.config.paths
    token_ids = rollouts.token_ids
    forward = completion_logits(
        model, params, batch, token_ids, rollouts.bins, replay=rollouts.experts, choices=grammar.choices
    )  # fmt: skip
    remaining = rollouts.budgets[:, None] - jnp.arange(token_ids.shape[1])
    mask = grammar.choice_mask(grammar.states(token_ids), remaining)
    chosen = grammar.choice_of_token(token_ids)
    return token_statistics(forward.logits, mask, token_ids, chosen, rollouts.bins, paths, temperature)


def make_policy_step(
    model: Moondream,
    grammar: Grammar,
    tables: TokenTables,
    optimizer: optax.GradientTransformation,
    *,
    temperature: float,
    baseline: Literal["leave-one-out", "group-mean"],
    clip_low: float,
    clip_high: float,
    entropy_weight: float,
    kl_weight: float,
    supervised_weight: float,
    average_decay: float,
) -> Callable[..., tuple[LearnerState, dict[str, SumAndCount]]]:
    """A compiled gradient step: (state, reference parameters, batch, targets, rollouts, scored) → (state, sums).

    Parameters are `{"policy": …}`; the reference is only read where `kl_weight` is not 0. Weights multiply means:
    policy loss per sequence, entropy and KL per token, supervised loss per token.
    """

    def loss(
        params: Any,
        reference: Any,
        batch: PromptBatch,
        targets: TargetBatch,
        rollouts: Rollouts,
        scored: Scored,
    ) -> tuple[Array, dict[str, SumAndCount]]:
        prompts = batch.valid.size
        iou, reward = scored.iou.reshape(prompts, -1), scored.reward.reshape(prompts, -1)
        usable = batch.valid.reshape(prompts) & ~flat_groups(iou)
        group = iou.shape[1]
        rows = jnp.repeat(usable, group)
        learned = rows[:, None] & (jnp.arange(rollouts.token_ids.shape[1]) < rollouts.lengths[:, None])
        advantage = advantages(reward, baseline).reshape(-1)
        now = rollout_statistics(model, grammar, params["policy"], batch, rollouts, temperature)
        policy = clipped_policy_loss(now.log_probs, rollouts.log_probs, advantage, learned, clip_low, clip_high)
        tokens = jnp.sum(learned).astype(jnp.float32)
        entropy = (jnp.sum(jnp.where(learned, now.entropy, 0.0)), tokens)
        flat = batch.valid.reshape(prompts) & flat_groups(iou)
        sums = {
            "policy_loss": policy.loss, "entropy": entropy, "clip_fraction": policy.clipped,
            "mismatch_kl": policy.mismatch,
            "flat_groups": (jnp.sum(flat).astype(jnp.float32), jnp.sum(batch.valid).astype(jnp.float32)),
        }  # fmt: skip
        total = _mean(policy.loss) - entropy_weight * _mean(entropy)
        if kl_weight:
            then = rollout_statistics(model, grammar, reference, batch, rollouts, temperature)
            gap = jnp.where(learned, jax.lax.stop_gradient(then.log_probs) - now.log_probs, 0.0)
            sums["reference_kl"] = (jnp.sum(jnp.exp(gap) - 1.0 - gap), tokens)
            total += kl_weight * _mean(sums["reference_kl"])
        if supervised_weight:
            budget = model.config.paths.max_new_tokens
            supervised = sft_sums(model, tables, params["policy"], False, batch, targets, budget)
            sums["supervised"] = _add(supervised["box"], supervised["path"])
            total += supervised_weight * _mean(sums["supervised"])
        return total, sums

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: LearnerState, reference: Any, *batch: Any) -> tuple[LearnerState, dict[str, SumAndCount]]:
        gradients, sums = jax.grad(loss, has_aux=True)(state.params, reference, *batch)
        state, norm = apply_gradients(state, gradients, optimizer, average_decay)
        return state, {**sums, "gradient_norm": (norm, jnp.ones(()))}

    return step


def _mean(pair: SumAndCount) -> Float[Array, ""]:
    return pair[0] / jnp.maximum(pair[1], 1.0)


def _add(first: SumAndCount, second: SumAndCount) -> SumAndCount:
    return first[0] + second[0], first[1] + second[1]
