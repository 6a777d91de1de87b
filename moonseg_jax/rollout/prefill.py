"""Image and prompt passes: what every completion of a prompt, sampled or learned from, attends to."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.text import LayerContext
from moonseg_jax.types import PromptBatch, Routing


class Prefill(NamedTuple):
    """Of I images with K phrases each; rows are prompts, phrases of one image consecutive."""

    context: tuple[LayerContext, LayerContext]
    """Keys and values of the image prefix and of the prompts."""
    queries: Float[Array, "L I*K P H d"]
    """Of the prompts' attention in the routed layers."""
    prompt_end: Float[Array, "I*K D"]
    """Hidden row of the last prompt token: it predicts the first completion token."""
    lengths: Int[Array, " I*K"]
    """Prompt tokens."""
    image: Float[Array, "I p D"]
    """Embeddings of the image patches, before the text decoder."""
    image_experts: Int[Array, "L I p+1 k"]
    """Experts used by BOS and image patches."""
    prompt_experts: Int[Array, "L I*K P k"]


def prefill(model: Moondream, params: Any, batch: PromptBatch, replay: Routing | None = None) -> Prefill:
    """Runs every image once and every prompt once.

    Args:
      model: the policy.
      params: its parameters.
      batch: images and prompts.
      replay: experts to use, or None to route.
    """
    prompts = batch.prompt_ids.shape[0] * batch.prompt_ids.shape[1]
    lengths = batch.prompt_lengths.reshape(prompts)
    token_ids = batch.prompt_ids.reshape(prompts, -1)
    values = batch.prompt_values.reshape(prompts, -1, 2)
    variables = {"params": params}
    passed: Any = model.apply(
        variables, batch.crops, batch.stitch_rows, batch.stitch_cols,
        replay=None if replay is None else replay.image, method="prefix",
    )  # fmt: skip
    image, prefix, image_experts = passed
    passed, seen = model.apply(
        variables, prefix, token_ids, values, lengths,
        replay=None if replay is None else replay.prompt, method="prompt", mutable=["intermediates"],
    )  # fmt: skip
    hidden, prompt, prompt_experts = passed
    (queries,) = seen["intermediates"]["text"]["routed"]["attn"]["query"]
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return Prefill(
        context=(prefix, prompt), queries=queries, prompt_end=last, lengths=lengths, image=image,
        image_experts=image_experts, prompt_experts=prompt_experts,
    )  # fmt: skip
