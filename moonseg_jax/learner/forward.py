"""The learner's forward pass over given completions, in the same three parts as sampling."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moonseg_jax.model.moondream import HeadLogits, Moondream
from moonseg_jax.rollout.prefill import prefill
from moonseg_jax.rollout.values import values_from_bins
from moonseg_jax.types import PromptBatch, Routing


class Forward(NamedTuple):
    """Logits that predict each completion token, and the hidden rows auxiliary losses read."""

    logits: HeadLogits
    """Row t predicts completion token t; leading shape [N, T]."""
    queries: Float[Array, "L I*K P H d"]
    """Of the prompts' attention in the routed layers."""
    image_keys: Float[Array, "L I H p d"]
    """What they meet at the image patches."""
    image: Float[Array, "I p D"]
    """Embeddings of the image patches, before the text decoder."""
    experts: Int[Array, "L N T-1 k"]
    """Used by all completion tokens but the last, which nothing follows."""


def completion_logits(
    model: Moondream,
    params: Any,
    batch: PromptBatch,
    token_ids: Int[Array, "N T"],
    bins: Int[Array, "N T 2"],
    replay: Routing | None = None,
    choices: Int[Array, " A"] | None = None,
) -> Forward:
    """Runs image, prompts and completions; N is a multiple G of the batch's I*K prompts, groups consecutive.

    Args:
      model: the policy.
      params: its parameters.
      batch: images and prompts.
      token_ids: completions; token t is predicted by row t and read by later rows.
      bins: of coordinates and sizes.
      replay: experts to use, or None to route.
      choices: the only tokens to give logits for; None gives the whole vocabulary.
    """
    config = model.config

    def run(method: str, *args: Any, **kwargs: Any) -> Any:
        return model.apply({"params": params}, *args, method=method, **kwargs)

    before = prefill(model, params, batch, replay)
    group = token_ids.shape[0] // before.lengths.shape[0]
    last = jnp.repeat(before.prompt_end, group, axis=0)
    values = values_from_bins(token_ids, bins, config.region, config.paths)
    hidden, experts = run(
        "complete", before.context, jnp.repeat(before.lengths, group), token_ids[:, :-1], values[:, :-1],
        replay=None if replay is None else replay.completion[:, :, :-1],
    )  # fmt: skip
    predicting = jnp.concatenate([last[:, None], hidden], axis=1)
    return Forward(
        logits=run("heads", predicting, choices), queries=before.queries,
        image_keys=before.context[0].routed.keys[:, :, :, 1:], image=before.image,
        experts=experts,
    )  # fmt: skip
