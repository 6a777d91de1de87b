"""The rollout engine: prompts to completions, one program, slots refilled without waiting for the slowest.

Images are encoded and prompts prefilled once; samples read their prefix where it lies. A fixed number of slots
decode side by side, and a slot whose sample has ended takes the next one of the queue at once. When the last sample
of an image has ended, the image's place is taken by the next one. A sample's noise depends on (seed, policy version,
prompt id, sample index) and the step alone, and no row of the arithmetic sees another, so that a sample's tokens do
not depend on its slot, its neighbours or the order of refilling.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from moonseg_jax.engines import most_of_engines
from moonseg_jax.model.decoding import decode, layers_of
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.pages import empty_caches
from moonseg_jax.paths.grammar import Grammar
from moonseg_jax.rollout.log_probs import token_statistics
from moonseg_jax.rollout.noise import draw
from moonseg_jax.rollout.prefill import Prefill, prefill
from moonseg_jax.rollout.record import Drawn, Record, empty_record, write
from moonseg_jax.rollout.residents import Residents, admit, empty_residents, free_places, release
from moonseg_jax.rollout.settings import EngineSizes, Sampling
from moonseg_jax.rollout.slots import Queue, Slots, leave, refill, seating
from moonseg_jax.rollout.values import values_from_bins
from moonseg_jax.types import (
    FINISH_BUDGET,
    FINISH_CLOSED,
    FINISH_INVALID,
    PromptBatch,
    Rollouts,
    Routing,
    SumAndCount,
)


@flax.struct.dataclass
class EngineState:
    """The loop's carry."""

    slots: Slots
    queue: Queue
    residents: Residents
    record: Record
    unfinished: Int[Array, ""]
    """Samples still to be finished, those not started included."""
    useful: Int[Array, ""]
    """Slot-steps that held a sample."""
    steps: Int[Array, ""]


def sample(
    model: Moondream,
    grammar: Grammar,
    params: Any,
    batch: PromptBatch,
    keys: jax.Array | None,
    sampling: Sampling,
    budgets: Int[Array, " N"] | None = None,
) -> tuple[Rollouts, SumAndCount]:
    """Samples a group of completions for every prompt; padding prompts get empty ones.

    Args:
      model: the policy.
      grammar: enforced, every completion ends properly within its budget; else decoding is free.
      params: the policy's parameters.
      batch: I images with K phrases.
      keys: [N] keys from `sample_keys`, N = I*K*G, samples of one prompt consecutive; None only where greedy.
      sampling: group, temperature, slots.
      budgets: most tokens of each sample, EOS included, at most `paths.max_new_tokens`; None means that.

    Returns:
      completions, with log-probabilities at T (at 1 when greedy); useful slot-steps and all of them.
    """
    images, phrases = batch.prompt_ids.shape[:2]
    sizes, samples = sampling.sizes(images, phrases), images * phrases * sampling.group
    budget = model.config.paths.max_new_tokens
    budgets = jnp.full(samples, budget, jnp.int32) if budgets is None else jnp.minimum(budgets, budget)
    step = make_step(model, grammar, params, keys, budgets, sampling)
    per_image = jnp.sum(batch.valid, axis=1) * sampling.group
    count = sizes.images_per_prefill

    def admit_and_decode(state: EngineState, first_image: Int[Array, ""]) -> tuple[EngineState, Any]:
        some = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first_image, count), batch)
        before = prefill(model, params, some)
        fresh = jax.lax.dynamic_slice_in_dim(per_image, first_image, count)
        state = dataclasses.replace(
            state,
            residents=admit(state.residents, before, model.config.text, first_image, fresh),
            queue=dataclasses.replace(state.queue, ready=state.queue.ready + jnp.sum(fresh)),
        )
        is_last = first_image + count >= images

        def decodes(state: EngineState) -> Array:
            wants = jnp.where(is_last, state.unfinished > 0, free_places(state.residents) < count)
            return most_of_engines(wants.astype(jnp.int32)) > 0

        state = jax.lax.while_loop(decodes, step, state)
        return state, (before.image_experts, before.prompt_experts) if sampling.record_experts else None

    start = initial_state(model, params, grammar, batch, sampling, sizes)
    final, experts = jax.lax.scan(admit_and_decode, start, jnp.arange(0, images, count))
    record = final.record
    rollouts = Rollouts(
        token_ids=record.token_ids, bins=record.bins, log_probs=record.log_probs, lengths=record.lengths,
        budgets=budgets, finish=record.finish,
        experts=None if record.experts is None else _routing(experts, record.experts),
    )  # fmt: skip
    return rollouts, (final.useful.astype(jnp.float32), (final.steps * sizes.slots).astype(jnp.float32))


def make_step(
    model: Moondream,
    grammar: Grammar,
    params: Any,
    keys: jax.Array | None,
    budgets: Int[Array, " N"],
    sampling: Sampling,
) -> Callable[[EngineState], EngineState]:
    """A function that draws one token for every slot: refill, draw, write down, run the drawn tokens.

    Args:
      model: the policy.
      grammar: see `sample`.
      params: the policy's parameters.
      keys: see `sample`.
      budgets: most tokens of each sample.
      sampling: its temperature counts.
    """
    config, samples = model.config, len(budgets)
    layers = layers_of(params, config.text)

    def step(state: EngineState) -> EngineState:
        slots, queue = refill(state.slots, state.queue, state.residents, grammar.initial)
        busy, own, residents = slots.busy, jnp.minimum(slots.sample, samples - 1), state.residents
        remaining = budgets[own] - slots.step
        logits: Any = model.apply({"params": params}, slots.hidden, grammar.choices, method="heads")
        mask = grammar.choice_mask(slots.grammar_state, remaining)
        chosen, coord, size = draw(logits, mask, None if keys is None else keys[own], slots.step, sampling.temperature)
        token = grammar.choices[chosen]
        is_coord, is_size = token == config.paths.coord_token, token == config.paths.size_token
        coord_bins = jnp.stack([coord, jnp.zeros_like(coord)], axis=-1)
        bins = jnp.where(is_coord[:, None], coord_bins, jnp.where(is_size[:, None], size, 0))
        statistics = token_statistics(logits, mask, token, chosen, bins, config.paths, sampling.temperature or 1.0)

        ended = token == config.paths.eos
        finished = busy & (ended | (remaining <= 1))
        broken = slots.broken | ~grammar.allows(slots.grammar_state, token)
        finish = jnp.where(broken, FINISH_INVALID, jnp.where(ended, FINISH_CLOSED, FINISH_BUDGET))
        hidden, caches, experts = decode(
            model, params, layers, residents.contexts, residents.prompt_lengths[residents.prompt_of_seat(slots.seat)],
            token[:, None], values_from_bins(token, bins, config.region, config.paths)[:, None], slots.step,
            slots.caches, seating(slots, residents),
        )  # fmt: skip
        drawn = Drawn(token_ids=token, bins=bins, log_probs=statistics.log_probs)
        following = dataclasses.replace(
            slots,
            step=slots.step + 1, hidden=hidden[:, 0], grammar_state=grammar.advance(slots.grammar_state, token),
            broken=broken, caches=caches,
        )  # fmt: skip
        return EngineState(
            slots=leave(following, finished, residents),
            queue=queue,
            residents=release(residents, slots.seat, finished),
            record=write(state.record, slots.sample, slots.step, drawn, experts, finished, finish),
            unfinished=state.unfinished - jnp.sum(finished),
            useful=state.useful + jnp.sum(busy),
            steps=state.steps + 1,
        )

    return step


def initial_state(
    model: Moondream, params: Any, grammar: Grammar, batch: PromptBatch, sampling: Sampling, sizes: EngineSizes
) -> EngineState:
    """The engine before its first image: idle slots, free places, an empty record; arguments as in `sample`."""
    config, group = model.config, sampling.group
    some = jax.tree.map(lambda leaf: leaf[: sizes.images_per_prefill], batch)
    before: Prefill = jax.eval_shape(functools.partial(prefill, model), params, some)
    images, samples = len(batch.valid), batch.valid.size * group
    residents = empty_residents(before, config.text, images, sizes.residents, group)
    real = jnp.repeat(batch.valid.reshape(-1), group)
    dtype = before.prompt_end.dtype
    return EngineState(
        slots=Slots(
            sample=jnp.full(sizes.slots, samples, jnp.int32),
            seat=jnp.full(sizes.slots, residents.seats, jnp.int32),
            step=jnp.zeros(sizes.slots, jnp.int32),
            hidden=jnp.zeros((sizes.slots, config.text.width), dtype),
            grammar_state=jnp.full(sizes.slots, grammar.initial, jnp.int32),
            broken=jnp.zeros(sizes.slots, bool),
            caches=empty_caches(config.text, sizes.slots, config.paths.max_new_tokens, dtype),
            idle=samples,
        ),
        queue=Queue(
            order=jnp.argsort(~real, stable=True), ready=jnp.zeros((), jnp.int32), taken=jnp.zeros((), jnp.int32)
        ),
        residents=residents,
        record=empty_record(config, samples, sampling.record_experts),
        unfinished=jnp.sum(real),
        useful=jnp.zeros((), jnp.int32),
        steps=jnp.zeros((), jnp.int32),
    )


def _routing(prefixes: tuple[Array, Array], completion: Int[Array, "L N T k"]) -> Routing:
    """Joins what the prefills of several images used, in the order of the queue."""

    def joined(chunks: Array) -> Array:
        # A model without routed layers has nothing to join, and reshaping cannot guess the size of that.
        steps, layers, rows, *rest = chunks.shape
        return jnp.moveaxis(chunks, 0, 1).astype(completion.dtype).reshape(layers, steps * rows, *rest)

    image, prompt = prefixes
    return Routing(image=joined(image), prompt=joined(prompt), completion=completion)
