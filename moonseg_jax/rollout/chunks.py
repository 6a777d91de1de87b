"""The rollout engine in chunks: one program reads images and prompts, another decodes so many tokens and gives back.

Both use the steps of `engine`, so what is drawn is what `engine.sample` draws greedily; between two chunks the host can
look at what there is. The second program takes the number of tokens as an argument: whole completions and chunks of
them are the same program.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from moonseg_jax.model.moondream import Moondream
from moonseg_jax.paths.grammar import Grammar
from moonseg_jax.rollout.engine import EngineState, initial_state, make_step
from moonseg_jax.rollout.noise import GREEDY
from moonseg_jax.rollout.prefill import prefill
from moonseg_jax.rollout.residents import admit
from moonseg_jax.rollout.settings import EngineSizes, Sampling
from moonseg_jax.types import PromptBatch

BEST = Sampling(temperature=GREEDY, record_experts=False)


def begin(model: Moondream, grammar: Grammar, params: Any, batch: PromptBatch, slots: int) -> EngineState:
    """Runs every image and every prompt once; nothing is drawn yet.

    Args:
      model: the policy.
      grammar: enforced.
      params: the policy's parameters.
      batch: I images with K phrases; padding phrases get empty completions.
      slots: completions decoded side by side, at most I * K; the others wait for their turn.
    """
    images = batch.prompt_ids.shape[0]
    sizes = EngineSizes(slots=slots, residents=images, images_per_prefill=images)
    state = initial_state(model, params, grammar, batch, BEST, sizes)
    fresh = jnp.sum(batch.valid, axis=1)
    first = jnp.zeros((), jnp.int32)
    return dataclasses.replace(
        state,
        residents=admit(state.residents, prefill(model, params, batch), model.config.text, first, fresh),
        queue=dataclasses.replace(state.queue, ready=jnp.sum(fresh)),
    )


def advance(model: Moondream, grammar: Grammar, params: Any, state: EngineState, tokens: Int[Array, ""]) -> EngineState:
    """Draws the best tokens until every completion has ended, or for `tokens` steps of the slots.

    Args:
      model: the policy.
      grammar: enforced.
      params: the policy's parameters.
      state: of `begin` or an earlier `advance`.
      tokens: steps at most.
    """
    budgets = jnp.full(len(state.record.lengths), model.config.paths.max_new_tokens, jnp.int32)
    step = make_step(model, grammar, params, None, budgets, BEST)
    last = state.steps + tokens

    def decodes(now: EngineState) -> Array:
        return (now.unfinished > 0) & (now.steps < last)

    return jax.lax.while_loop(decodes, step, state)
