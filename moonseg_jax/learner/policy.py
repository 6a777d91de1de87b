"""Policy-gradient learning from rollouts: what of them is learned, and the gradient step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from moonseg_jax.learner.credit import credit
from moonseg_jax.learner.forward import completion_logits
from moonseg_jax.learner.micro_batches import joined_rows, split_rollouts, split_rows
from moonseg_jax.learner.policy_objective import loss_under
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.learner.sft import sft_sums
from moonseg_jax.learner.state import LearnerState, apply_gradients
from moonseg_jax.learner.token_sums import WeightSums, denominator
from moonseg_jax.learner.trainable import EVERYTHING, Trainable
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.paths.grammar import Grammar
from moonseg_jax.paths.vocabulary import TokenTables
from moonseg_jax.rollout.log_probs import TokenStatistics, token_statistics
from moonseg_jax.types import PromptBatch, Rollouts, Scored, SumAndCount, TargetBatch

Sums = dict[str, SumAndCount | WeightSums]


@flax.struct.dataclass
class Lesson:
    """What a batch or micro-batch of rollouts teaches; rows as in `Rollouts`."""

    prompts: PromptBatch
    targets: TargetBatch
    rollouts: Rollouts
    old_log_probs: Float[Array, "N T"]
    """Under the policy that ratios are taken against."""
    advantage: Float[Array, " N"] | Float[Array, "N T"]
    learned: Bool[Array, "N T"]
    sampled: Bool[Array, " N"] | None
    """False for injected rows; None where there can be none."""


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


def make_old_log_probs(
    model: Moondream, grammar: Grammar, *, temperature: float, microbatches: int = 1
) -> Callable[[Any, PromptBatch, Rollouts], Float[Array, "N T"]]:
    """Compiled log-probabilities of rollouts under the learner's policy before it learns from them.

    Where samples are corrected for staleness, ratios are taken against these, and not against the sampler's
    (Hilton et al. 2022, "Batch size-invariance for policy optimization", §3).
    """

    def log_probs(params: Any, batch: PromptBatch, rollouts: Rollouts) -> Array:
        def of_part(part: tuple[PromptBatch, Rollouts]) -> Array:
            return rollout_statistics(model, grammar, params, part[0], part[1], temperature).log_probs

        images = batch.valid.shape[0]
        parts = split_rows(batch, images, microbatches), split_rollouts(rollouts, images, microbatches)
        return joined_rows(jax.lax.map(of_part, parts), images)

    return jax.jit(log_probs)


def make_policy_step(
    model: Moondream,
    grammar: Grammar,
    tables: TokenTables,
    optimizer: optax.GradientTransformation,
    *,
    loss: PolicyLossConfig,
    temperature: float,
    supervised_weight: float,
    average_decay: float,
    microbatches: int = 1,
    trainable: Trainable = EVERYTHING,
) -> Callable[..., tuple[LearnerState, Sums]]:
    """A compiled gradient step: (state, reference parameters, batch, targets, rollouts, scored) → (state, sums).

    A seventh argument gives the log-probabilities that ratios are taken against, where they are not the sampler's.
    Parameters are `{"policy": …}`; the reference is only read where the loss needs it.

    Args:
      model: the policy.
      grammar: which tokens the samples could be drawn from.
      tables: see `sft_sums`; where rewards are placed on tokens, also which of them close a subpath.
      optimizer: see `optimizers`.
      loss: what is minimised.
      temperature: the samples were drawn at.
      supervised_weight: of the mean supervised loss per token on the same prompts.
      average_decay: of the averaged weights.
      microbatches: parts whose gradients are computed one after the other; any number that divides the images makes
        the same step.
      trainable: what gradients reach.
    """
    budget = model.config.paths.max_new_tokens

    def part_loss(
        params: Any, frozen: Any, reference: Any, part: Lesson, counts: tuple[Array, Array]
    ) -> tuple[Array, Sums]:
        """A micro-batch's share of the loss: its sums, over the counts of the whole batch."""
        learning = trainable.whole(params["policy"], frozen)
        statistics = functools.partial(
            rollout_statistics, model, grammar, batch=part.prompts, rollouts=part.rollouts, temperature=temperature
        )
        now = statistics(params=learning)
        then = statistics(params=reference).log_probs if loss.needs_reference else None
        policy = loss_under(
            loss, now.log_probs, part.old_log_probs, part.advantage, part.learned, max_tokens=budget,
            behaviour_log_probs=part.rollouts.log_probs, reference_log_probs=then, entropy=now.entropy,
            sampled=part.sampled,
        )  # fmt: skip
        sums: dict[str, SumAndCount | WeightSums | None] = {
            "policy_loss": policy.surrogate, "clip_fraction": policy.clipped, "mismatch_kl": policy.mismatch_kl,
            "effective_sample_size": policy.importance, "entropy": policy.entropy,
            "reference_kl": policy.reference_kl, "correction_capped": policy.capped,
        }  # fmt: skip
        total = policy.loss[0] / counts[0]
        if supervised_weight:
            of_targets = sft_sums(model, tables, learning, False, part.prompts, part.targets, budget)
            sums["supervised"] = supervised = _add(of_targets["box"], of_targets["path"])
            total += supervised_weight * supervised[0] / counts[1]
        return total, {name: figure for name, figure in sums.items() if figure is not None}

    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        state: LearnerState,
        reference: Any,
        batch: PromptBatch,
        targets: TargetBatch,
        rollouts: Rollouts,
        scored: Scored,
        old_log_probs: Array | None = None,
    ) -> tuple[LearnerState, Sums]:
        credited = credit(loss, batch, rollouts, scored, budget, tables)
        learned = credited.learned
        old = rollouts.log_probs if old_log_probs is None else old_log_probs
        lesson = Lesson(batch, targets, rollouts, old, credited.advantage, learned, credited.sampled)
        supervised = jnp.sum(jnp.minimum(targets.lengths, budget)).astype(jnp.float32)
        counts = jnp.maximum(denominator(learned, loss.aggregation), 1.0), jnp.maximum(supervised, 1.0)

        def accumulate(gradients: Any, part: Lesson) -> tuple[Any, tuple[Array, Sums]]:
            figures, own = jax.value_and_grad(part_loss, has_aux=True)(
                state.params, state.frozen, reference, part, counts
            )
            return jax.tree.map(jnp.add, gradients, own), figures

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        parts = _split(lesson, microbatches)
        gradients, figures = jax.lax.scan(accumulate, zeros, parts, unroll=microbatches == 1)
        total, sums = jax.tree.map(functools.partial(jnp.sum, axis=0), figures)
        state, norm = apply_gradients(state, total, gradients, optimizer, average_decay)
        return state, {**sums, "flat_groups": credited.flat, "gradient_norm": (norm, jnp.ones(()))}

    return step


def _split(lesson: Lesson, count: int) -> Lesson:
    """All arrays get the micro-batches as their first dimension."""
    images = lesson.prompts.valid.shape[0]
    split = functools.partial(split_rows, images=images, count=count)
    return Lesson(
        prompts=split(lesson.prompts), targets=split(lesson.targets), old_log_probs=split(lesson.old_log_probs),
        rollouts=split_rollouts(lesson.rollouts, images, count), advantage=split(lesson.advantage),
        learned=split(lesson.learned), sampled=split(lesson.sampled),
    )  # fmt: skip


def _add(first: SumAndCount, second: SumAndCount) -> SumAndCount:
    return first[0] + second[0], first[1] + second[1]
