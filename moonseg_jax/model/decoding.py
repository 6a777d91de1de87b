"""The text decoder token by token: the same blocks, run one by one with weights and caches of their own.

A scan over stacked layers takes every layer's weights and cache out of the stack again at every step, which costs
more than the step itself; here they are taken apart once, before the loop.

Letters: N rows, T tokens at once (1 in a loop).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moonseg_jax.config import TextConfig
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.pages import Cache
from moonseg_jax.model.segments import Seats, Segment
from moonseg_jax.model.text import Block, LayerContext

Layers = tuple[Any, ...]
"""Parameters of every block, dense ones first."""


def layers_of(params: Any, config: TextConfig) -> Layers:
    """The policy's stacked text blocks, one tree per layer."""
    dense, routed = params["text"]["dense"], params["text"]["routed"]
    counts = (config.dense_layers, config.layers - config.dense_layers)
    return tuple(_layer(stack, index) for stack, count in zip((dense, routed), counts) for index in range(count))


def contexts_of(context: LayerContext, config: TextConfig) -> tuple[Segment, ...]:
    """The stacked keys and values of one segment, one `Segment` per layer."""
    counts = (config.dense_layers, config.layers - config.dense_layers)
    stacks = (context.dense, context.routed)
    return tuple(_layer(stack, index) for stack, count in zip(stacks, counts) for index in range(count))


def decode(
    model: Moondream,
    params: Any,
    layers: Layers,
    contexts: tuple[list[Segment], ...],
    prompt_lengths: Int[Array, " N"],
    token_ids: Int[Array, "N T"],
    values: Float[Array, "N T 2"],
    steps: Int[Array, " N"],
    caches: tuple[Cache, ...],
    seats: Seats | None = None,
) -> tuple[Float[Array, "N T D"], tuple[Cache, ...], Int[Array, "L N T k"]]:
    """Runs the next completion tokens over what has been decoded.

    Args:
      model: the policy.
      params: its parameters; of the blocks, `layers` is read instead.
      layers: see `layers_of`.
      contexts: per layer, the segments before the completion: image prefix and prompt.
      prompt_lengths: per row, for the positions.
      token_ids: completion tokens.
      values: coordinates and sizes at their tokens.
      steps: completion tokens of every row already in the caches.
      caches: own keys and values so far, per layer.
      seats: which rows share which segment of a context; None means that rows sharing one are consecutive.

    Returns:
      hidden rows before the final LayerNorm, updated caches, and the experts used.
    """
    config = model.config.text
    index = steps[:, None] + jnp.arange(token_ids.shape[1])
    positions = model.config.prefix_tokens + prompt_lengths[:, None] + index
    x_NTD: Any = model.apply({"params": params}, token_ids, values, method="embed")
    updated, experts = [], []
    for number, (layer, context, cache) in enumerate(zip(layers, contexts, caches, strict=True)):
        block = Block(config, routed=number >= config.dense_layers, dtype=model.dtype)
        passed: Any = block.apply({"params": layer}, x_NTD, context, None, positions, None, seats, cache, index)
        x_NTD, (_, chosen, cache) = passed
        updated.append(cache)
        if chosen is not None:
            experts.append(chosen)
    none = jnp.zeros((0, *token_ids.shape, config.active_experts), jnp.int32)
    return x_NTD, tuple(updated), jnp.stack(experts) if experts else none


def _layer(stack: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], stack)
