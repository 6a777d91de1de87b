"""Rescue of hopeless groups: the traced path of the ground truth, put beside the policy's own samples.

A policy that never comes near a target learns nothing from its samples. Where the best of a group is too bad, the
traced target is added as one more completion, and it is marked for what it is: off-policy, from a behaviour without
choice, which gives it probability 1 (log-probability 0). Likelihood ratios against that behaviour are the policy's
own probabilities, token by token, never above 1: no cap binds, and tokens that the policy finds impossible move it
little. That is the price of honest weights (the mixed-policy objective of Yan et al. 2025, "Learning to Reason under
Off-Policy Guidance", eq. 5 without its shaping); to imitate at full strength is what supervised mixing is for.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int

from moonseg_jax.axes import ENGINES
from moonseg_jax.engines import over_engines
from moonseg_jax.learner.advantages import FLAT
from moonseg_jax.learner.forward import completion_logits
from moonseg_jax.learner.token_sums import number_of
from moonseg_jax.partition import gathered_parameters, whole
from moonseg_jax.paths.grammar import Grammar
from moonseg_jax.policy import Policy
from moonseg_jax.rewards import RewardSpec
from moonseg_jax.rewards.potential import on_last_token
from moonseg_jax.rollout.groups import placement_of_rollouts
from moonseg_jax.rollout.score import read_paths, score
from moonseg_jax.types import (
    FINISH_CLOSED,
    INJECTED,
    SAMPLED,
    PromptBatch,
    Rollouts,
    Scored,
    SumAndCount,
    TargetBatch,
)

Injected = tuple[Rollouts, Scored, dict[str, SumAndCount]]
Injection = Callable[[Any, PromptBatch, TargetBatch, Rollouts, Scored, Int[Array, ""] | int], Injected]


def make_injection(policy: Policy, *, below: float, reward: RewardSpec, mesh: Mesh | None = None) -> Injection:
    """Compiles the rescue; on a mesh, every device looks after its own images.

    Every group gets one more row, its last; it is empty (length 0) where the policy needs no help, where the
    traced path is no better than the best sample, and where the grammar cannot write it. Judged on raw IoU alone,
    as all filtering of groups.

    Args:
      policy: the model and its language.
      below: groups whose best raw IoU is below this are hopeless; 0 injects nothing and compiles nothing.
      reward: what completions are paid for.
      mesh: over which images are split; None runs on one device.

    Returns:
      Function (parameters that sampled, batch, targets, rollouts, scores, step) → rollouts and scores with G + 1
      rows per prompt, and figures: `hopeless_groups` (their share) and `injected` (paths per step). Without
      anything to inject it returns what it was given and no figures.
    """
    if below == 0.0:
        return lambda params, batch, targets, rollouts, scored, step: (rollouts, scored, {})

    def inject(
        params: Any, batch: PromptBatch, targets: TargetBatch, rollouts: Rollouts, scored: Scored, step: Array
    ) -> tuple[Rollouts, Scored, Bool[Array, " Q"], Bool[Array, " Q"]]:
        params, (batch, targets, rollouts, scored) = (
            gathered_parameters(params, policy.model.dtype),
            whole((batch, targets, rollouts, scored)),
        )
        given = _given_paths(policy, targets)
        drawn = read_paths(policy.config, policy.tables, given)
        truth = batch.ground_truth.reshape(-1, *batch.ground_truth.shape[2:])
        judged = score(given, drawn, truth, given.lengths, reward, step)
        best = jnp.max(scored.iou.reshape(len(judged.iou), -1), axis=1)
        hopeless = batch.valid.reshape(-1) & (best < below)
        wanted = hopeless & (judged.iou > best + FLAT) & writable(policy.grammar, given)
        given = _only(given, wanted, policy.config.paths.eos)
        experts = rollouts.experts
        if experts is not None:
            routed = _experts_of(policy, params, batch, given)
            both = _beside(experts.completion, routed, len(given.lengths), axis=1)
            experts = dataclasses.replace(experts, completion=both)
        joined, paid = _joined(rollouts, scored, given, judged)
        return dataclasses.replace(joined, experts=experts), paid, hopeless, wanted

    def run(
        params: Any, batch: PromptBatch, targets: TargetBatch, rollouts: Rollouts, scored: Scored, step: Array
    ) -> Injected:
        with_experts = rollouts.experts is not None
        rows = P(ENGINES)
        placed = over_engines(
            inject, mesh, (P(), rows, rows, placement_of_rollouts(with_experts), rows, P()),
            (placement_of_rollouts(with_experts, with_source=True), rows, rows, rows),
        )  # fmt: skip
        rollouts, scored, hopeless, wanted = placed(params, batch, targets, rollouts, scored, step)
        return rollouts, scored, {
            "hopeless_groups": (number_of(hopeless), number_of(batch.valid)),
            "injected": (number_of(wanted), jnp.ones(())),
        }  # fmt: skip

    return jax.jit(run)


def writable(grammar: Grammar, given: Rollouts) -> Bool[Array, " Q"]:
    """Completions that the grammar could have sampled within their budgets: no token has probability 0."""
    token_ids = given.token_ids
    position = jnp.arange(token_ids.shape[1])
    mask = grammar.choice_mask(grammar.states(token_ids), given.budgets[:, None] - position)
    chosen = grammar.choice_of_token(token_ids)
    legal = jnp.take_along_axis(mask, chosen[..., None], axis=-1)[..., 0] & (grammar.choices[chosen] == token_ids)
    fits = (given.lengths > 0) & (given.lengths <= given.budgets)
    return fits & jnp.all(legal | (position >= given.lengths[:, None]), axis=1)


def _given_paths(policy: Policy, targets: TargetBatch) -> Rollouts:
    """Traced targets as completions."""
    rows = targets.lengths.size
    token_ids = targets.token_ids.reshape(rows, -1)
    return Rollouts(
        token_ids=token_ids, bins=targets.bins.reshape(rows, -1, 2), log_probs=jnp.zeros(token_ids.shape),
        lengths=targets.lengths.reshape(rows), finish=jnp.full(rows, FINISH_CLOSED, jnp.int32), experts=None,
        budgets=jnp.full(rows, policy.config.paths.max_new_tokens, jnp.int32),
        source=jnp.full(rows, INJECTED, jnp.int32),
    )  # fmt: skip


def _experts_of(policy: Policy, params: Any, batch: PromptBatch, given: Rollouts) -> Int[Array, "L Q T k"]:
    """The experts that the policy would have used, had it sampled these paths: one forward pass.

    A model replays all rows of a batch or none, and these have no record.
    """
    routed = completion_logits(policy.model, params, batch, given.token_ids, given.bins).experts
    return jnp.pad(routed, ((0, 0), (0, 0), (0, 1), (0, 0)))


def _only(given: Rollouts, wanted: Bool[Array, " Q"], eos: int) -> Rollouts:
    """Empty rows, written as the engine writes those of padding, where nothing is wanted."""
    return dataclasses.replace(
        given,
        token_ids=jnp.where(wanted[:, None], given.token_ids, eos),
        bins=jnp.where(wanted[:, None, None], given.bins, 0),
        lengths=jnp.where(wanted, given.lengths, 0),
    )


def _joined(rollouts: Rollouts, scored: Scored, given: Rollouts, judged: Scored) -> tuple[Rollouts, Scored]:
    """Each prompt's given row behind its samples; without experts.

    Given rows are credited as a whole: were rewards placed on their tokens, each would have all of it as its return.
    """
    if scored.token_reward is not None:
        placed = on_last_token(judged.reward, given.lengths, given.token_ids.shape[1])
        judged = dataclasses.replace(judged, token_reward=placed)
    sampled = dataclasses.replace(rollouts, experts=None, source=jnp.full(rollouts.lengths.shape, SAMPLED, jnp.int32))
    beside = functools.partial(_beside, prompts=len(given.lengths))
    return jax.tree.map(beside, sampled, given), jax.tree.map(beside, scored, judged)


def _beside(sampled: Array, given: Any, prompts: int, axis: int = 0) -> Array:
    """Rows [Q * G] and [Q] along an axis → [Q * (G + 1)]."""
    before, after = sampled.shape[:axis], sampled.shape[axis + 1 :]
    # The size of the group, not -1: a model without routed layers has nothing to guess it from.
    groups = sampled.reshape(*before, prompts, sampled.shape[axis] // prompts, *after)
    one = given.astype(sampled.dtype).reshape(*before, prompts, 1, *after)
    both = jnp.concatenate([groups, one], axis=axis + 1)
    return both.reshape(*before, sampled.shape[axis] + prompts, *after)
