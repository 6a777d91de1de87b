"""Greedy decoding as the official engine does it, written out row by row: no grammar, the best token of every row.

The region heads read every row; their best bins are fed back where the token is a coordinate or a size
(specification §8). It keeps what the package's own engine throws away: hidden rows and all logits.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moonseg_jax.model.decoding import contexts_of, decode, layers_of
from moonseg_jax.model.moondream import HeadLogits, Moondream
from moonseg_jax.model.pages import empty_caches
from moonseg_jax.rollout.prefill import prefill
from moonseg_jax.rollout.values import values_from_bins
from moonseg_jax.types import PromptBatch


@flax.struct.dataclass
class Decoded:
    """Completions with everything they were read from; row t predicts token t."""

    token_ids: Int[Array, "N T"]
    lengths: Int[Array, " N"]
    """Tokens up to the first EOS, which counts; T where there is none."""
    values: Float[Array, "N T 2"]
    """What was fed back: a coordinate in the first entry, (width, height) at sizes, 0 at text."""
    hidden: Float[Array, "N T D"]
    """Before the final LayerNorm."""
    logits: HeadLogits
    """Of every row, the region heads' included whatever the token is."""


def decode_unconstrained(
    model: Moondream, params: Any, batch: PromptBatch, steps: int, forced: Int[Array, "N T"] | None = None
) -> Decoded:
    """Decodes `steps` tokens after every prompt over a cache; rows go on past EOS, see `lengths`.

    Args:
      model: the policy.
      params: its parameters.
      batch: images and prompts, one row each.
      steps: T, static.
      forced: tokens to follow instead of the best ones, which negative entries leave in force; the values fed
        back are those of the best bins still.
    """
    paths, region = model.config.paths, model.config.region
    text = model.config.text
    before = prefill(model, params, batch)
    rows = before.lengths.shape[0]
    layers, caches = layers_of(params, text), empty_caches(text, rows, steps, before.prompt_end.dtype)
    contexts = tuple(map(list, zip(*(contexts_of(segment, text) for segment in before.context))))

    def one_step(carry: Any, at: tuple[Array, Array | None]) -> tuple[Any, Any]:
        (hidden, caches), (step, given) = carry, at
        logits = model.apply({"params": params}, hidden, method="heads")
        best = jnp.argmax(logits.token, axis=-1)
        token = best if given is None else jnp.where(given < 0, best, given)
        coord, size = jnp.argmax(logits.coord, axis=-1)[:, None], jnp.argmax(logits.size, axis=-1)
        bins = jnp.where((token == paths.coord_token)[:, None], coord, size)
        values = values_from_bins(token, bins, region, paths)
        following, caches, _ = decode(
            model,
            params,
            layers,
            contexts,
            before.lengths,
            token[:, None],
            values[:, None],
            jnp.full(rows, step),
            caches,
        )
        return (following[:, 0], caches), (token, values, hidden, logits)

    at = (jnp.arange(steps), None if forced is None else jnp.swapaxes(forced, 0, 1))
    _, seen = jax.lax.scan(one_step, (before.prompt_end, caches), at)
    token_ids, values, hidden, logits = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), seen)
    ended = token_ids == paths.eos
    lengths = jnp.where(ended.any(axis=1), jnp.argmax(ended, axis=1) + 1, steps)
    return Decoded(token_ids=token_ids, lengths=lengths, values=values, hidden=hidden, logits=logits)
