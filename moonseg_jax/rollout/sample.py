"""Sampling completions in lockstep: one prefix per image, one prompt per phrase, G samples over both.

Everything from image to tokens is one XLA program. A sample's noise depends on (seed, policy version, prompt id,
sample index) and the step alone, so its tokens do not depend on its place in the batch.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moonseg_jax.config import ModelConfig
from moonseg_jax.model.moondream import HeadLogits, Moondream
from moonseg_jax.model.text import DecoderCache, empty_cache
from moonseg_jax.paths.grammar import Grammar
from moonseg_jax.rollout.log_probs import token_statistics
from moonseg_jax.rollout.prefill import prefill
from moonseg_jax.rollout.values import values_from_bins
from moonseg_jax.types import FINISH_BUDGET, FINISH_CLOSED, PromptBatch, Rollouts

GREEDY = 0.0
"""Temperature that takes the best token and the best bins."""


@flax.struct.dataclass
class SamplingState:
    """The loop's carry."""

    step: Int[Array, ""]
    """Completion tokens drawn so far."""
    hidden: Float[Array, "N D"]
    """Row that predicts the next token."""
    grammar_state: Int[Array, " N"]
    finished: Array
    """bool[N]: EOS was drawn."""
    cache: DecoderCache
    token_ids: Int[Array, "N T"]
    bins: Int[Array, "N T 2"]
    log_probs: Float[Array, "N T"]
    lengths: Int[Array, " N"]
    experts: Int[Array, "L N T k"]


def sample_keys(
    seed_key: jax.Array, policy_version: Int[Array, ""], example_ids: Int[Array, "I K"], group: int
) -> jax.Array:
    """One random key per sample, from (seed, policy version, prompt id, sample index)."""
    version_key = jax.random.fold_in(seed_key, policy_version)
    prompt_keys = jax.vmap(lambda i: jax.random.fold_in(version_key, i))(example_ids.reshape(-1).astype(jnp.uint32))
    samples = jnp.arange(group)
    return jax.vmap(lambda key: jax.vmap(lambda g: jax.random.fold_in(key, g))(samples))(prompt_keys).reshape(-1)


def draw(
    logits: HeadLogits, mask: Array, keys: jax.Array, step: Int[Array, ""], temperature: float
) -> tuple[Int[Array, " N"], Int[Array, " N"], Int[Array, "N 2"]]:
    """Token, coordinate bin and size bins by the Gumbel-max rule, or by argmax at temperature 0."""
    masked = jnp.where(mask, logits.token, -jnp.inf)
    if temperature == GREEDY:
        return jnp.argmax(masked, -1), jnp.argmax(logits.coord, -1), jnp.argmax(logits.size, -1)
    sizes = [masked.shape[-1], logits.coord.shape[-1], 2 * logits.size.shape[-1]]

    def noise_of(key: jax.Array) -> Array:
        return jax.random.gumbel(jax.random.fold_in(key, step), (sum(sizes),))

    token, coord, size = jnp.split(jax.vmap(noise_of)(keys), [sizes[0], sizes[0] + sizes[1]], axis=-1)
    size = size.reshape(logits.size.shape)
    return (
        jnp.argmax(masked / temperature + token, axis=-1),
        jnp.argmax(logits.coord / temperature + coord, axis=-1),
        jnp.argmax(logits.size / temperature + size, axis=-1),
    )


def sample(
    model: Moondream,
    grammar: Grammar,
    params: Any,
    batch: PromptBatch,
    keys: jax.Array,
    group: int,
    temperature: float,
) -> Rollouts:
    """Samples `group` completions per prompt until all have ended or the budget is spent.

    Args:
      model: the policy.
      grammar: its mask; every completion under it ends properly within the budget.
      params: the policy's parameters.
      batch: I images with K phrases.
      keys: [N] keys from `sample_keys`, N = I*K*group, samples of one prompt consecutive. Unused when greedy.
      group: G.
      temperature: T > 0, or `GREEDY`; stored log-probabilities are at T (at 1 when greedy).
    """
    config = model.config
    budget, eos = config.paths.max_new_tokens, config.paths.eos

    def run(method: str, *args: Any, **kwargs: Any) -> Any:
        return model.apply({"params": params}, *args, method=method, **kwargs)

    before = prefill(model, params, batch)
    rows = before.lengths.shape[0] * group
    row_lengths = jnp.repeat(before.lengths, group)

    def one_step(state: SamplingState) -> SamplingState:
        logits = run("heads", state.hidden)
        remaining = jnp.full((rows,), budget) - state.step
        mask = grammar.mask(state.grammar_state, remaining)
        token, coord, size = draw(logits, mask, keys, state.step, temperature)
        is_coord, is_size = token == config.paths.coord_token, token == config.paths.size_token
        coord_bins = jnp.stack([coord, jnp.zeros_like(coord)], axis=-1)
        bins = jnp.where(is_coord[:, None], coord_bins, jnp.where(is_size[:, None], size, 0))
        statistics = token_statistics(logits, mask, token, bins, config.paths, temperature or 1.0)
        values = values_from_bins(token, bins, config.region, config.paths)
        hidden, cache, experts = run(
            "complete", before.context, row_lengths, token[:, None], values[:, None],
            start=state.step, cache=state.cache,
        )  # fmt: skip
        live = ~state.finished
        return SamplingState(
            step=state.step + 1,
            hidden=hidden[:, 0],
            grammar_state=grammar.advance(state.grammar_state, token),
            finished=state.finished | (token == eos),
            cache=cache,
            token_ids=state.token_ids.at[:, state.step].set(jnp.where(live, token, eos)),
            bins=state.bins.at[:, state.step].set(jnp.where(live[:, None], bins, 0)),
            log_probs=state.log_probs.at[:, state.step].set(jnp.where(live, statistics.log_probs, 0.0)),
            lengths=state.lengths + live,
            experts=jax.lax.dynamic_update_slice(state.experts, experts.astype(jnp.int16), (0, 0, state.step, 0)),
        )

    final = jax.lax.while_loop(
        lambda state: (state.step < budget) & ~jnp.all(state.finished),
        one_step,
        _initial(config, grammar, jnp.repeat(before.prompt_end, group, axis=0), budget),
    )
    return Rollouts(
        token_ids=final.token_ids, bins=final.bins, log_probs=final.log_probs, lengths=final.lengths,
        finish=jnp.where(final.finished, FINISH_CLOSED, FINISH_BUDGET), experts=final.experts,
    )  # fmt: skip


def _initial(config: ModelConfig, grammar: Grammar, hidden: Float[Array, "N D"], budget: int) -> SamplingState:
    rows = hidden.shape[0]
    routed = config.text.layers - config.text.dense_layers
    return SamplingState(
        step=jnp.zeros((), jnp.int32),
        hidden=hidden,
        grammar_state=jnp.full((rows,), grammar.initial, jnp.int32),
        finished=jnp.zeros((rows,), bool),
        cache=empty_cache(config.text, rows, budget, hidden.dtype),
        token_ids=jnp.full((rows, budget), config.paths.eos, jnp.int32),
        bins=jnp.zeros((rows, budget, 2), jnp.int32),
        log_probs=jnp.zeros((rows, budget)),
        lengths=jnp.zeros((rows,), jnp.int32),
        experts=jnp.zeros((routed, rows, budget, config.text.active_experts), jnp.int16),
    )
