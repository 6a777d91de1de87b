"""The assembled policy: image prefix, prompt, completion, and the heads that read them.

A sequence is BOS and image (the prefix, shared by all phrases of an image), then a prompt (shared by all samples of
a group), then a completion. Each part is one pass of the same decoder over the parts before it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from moonseg_jax.config import ModelConfig
from moonseg_jax.model.attention import prefix_mask
from moonseg_jax.model.region import Region
from moonseg_jax.model.stacks import Remat
from moonseg_jax.model.text import LayerContext, TextDecoder
from moonseg_jax.model.vision import VisionEncoder


class HeadLogits(NamedTuple):
    """Float32 logits of everything a hidden row can be asked for."""

    token: Float[Array, "... V"]
    coord: Float[Array, "... c"]
    size: Float[Array, "... 2 s"]


class Moondream(nn.Module):
    """Vision encoder, text decoder and region heads as one Linen module, used through `apply(..., method=...)`."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32
    remat: Remat = "none"

    def setup(self) -> None:
        """Submodules carry the official names."""
        c = self.config
        self.vision = VisionEncoder(c.vision, c.text.width, dtype=self.dtype, remat=self.remat)
        self.text = TextDecoder(c.text, dtype=self.dtype, remat=self.remat)
        self.region = Region(c.region, c.text.width, dtype=self.dtype)

    def encode_crops(self, crops: UInt8[Array, "B S S 3"]) -> tuple[Float[Array, "B p W"], Float[Array, "B p W"]]:
        """Final and early vision features of single crops, what the refiner reads."""
        return self.vision.features(crops)

    def embed(self, token_ids: Int[Array, "..."], values: Float[Array, "... 2"]) -> Float[Array, "... D"]:
        """Input embeddings: a vocabulary row, or the embedding of the value at coordinate and size tokens."""
        paths = self.config.paths
        coord = self.region.embed_coordinate(values[..., 0])
        size = self.region.embed_size(values)
        tokens = self.text.embed(token_ids)
        is_coord = (token_ids == paths.coord_token)[..., None]
        is_size = (token_ids == paths.size_token)[..., None]
        return jnp.where(is_coord, coord, jnp.where(is_size, size, tokens))

    def prefix(
        self,
        crops: UInt8[Array, "I C S S 3"],
        stitch_rows: Float[Array, "I C g g"],
        stitch_cols: Float[Array, "I C g g"],
        replay: Int[Array, "L I p+1 k"] | None = None,
    ) -> tuple[Float[Array, "I p D"], LayerContext, Int[Array, "L I p+1 k"]]:
        """Runs BOS and the image, all seeing all.

        Returns:
          the image's embeddings, the keys and values that later passes see, and the experts used.
        """
        image = self.vision(crops, stitch_rows, stitch_cols)
        bos = self.text.embed(jnp.full((image.shape[0], 1), self.config.paths.bos))
        embedded = jnp.concatenate([bos, image], axis=1)
        positions = jnp.broadcast_to(jnp.arange(embedded.shape[1]), embedded.shape[:2])
        _, context, experts = self.text(embedded, positions, replay=replay)
        return image, context, experts

    def prompt(
        self,
        prefix: LayerContext,
        token_ids: Int[Array, "N P"],
        values: Float[Array, "N P 2"],
        lengths: Int[Array, " N"],
        replay: Int[Array, "L N P k"] | None = None,
    ) -> tuple[Float[Array, "N P D"], LayerContext, Int[Array, "L N P k"]]:
        """Runs the prompts over their images' prefix.

        Returns:
          hidden rows; keys and values, those of padding marked invalid for later passes; the experts used.
        """
        count = token_ids.shape[1]
        positions = jnp.broadcast_to(self.config.prefix_tokens + jnp.arange(count), token_ids.shape)
        causal = jnp.tril(jnp.ones((count, count), bool))
        embedded = self.embed(token_ids, values)
        hidden, context, experts = self.text(embedded, positions, (prefix,), causal, replay)
        return hidden, _mark_valid(context, jnp.arange(count) < lengths[:, None]), experts

    def complete(
        self,
        context: tuple[LayerContext, ...],
        prompt_lengths: Int[Array, " N"],
        token_ids: Int[Array, "N T"],
        values: Float[Array, "N T 2"],
        replay: Int[Array, "L N T k"] | None = None,
    ) -> tuple[Float[Array, "N T D"], Int[Array, "L N T k"]]:
        """Runs whole completions; `decoding` runs them token by token.

        Args:
          context: prefix and prompt.
          prompt_lengths: per row, for the positions.
          token_ids: completion tokens.
          values: coordinates and sizes at their tokens.
          replay: experts to use, or None.

        Returns:
          hidden rows and the experts used.
        """
        count = token_ids.shape[1]
        positions = self.config.prefix_tokens + prompt_lengths[:, None] + jnp.arange(count)
        causal = jnp.tril(jnp.ones((count, count), bool))
        hidden, _, experts = self.text(self.embed(token_ids, values), positions, context, causal, replay)
        return hidden, experts

    def full_pass(self, embedded: Float[Array, "N T D"], prefix: int) -> Float[Array, "N T D"]:
        """Hidden rows of whole sequences in one pass, without a cache.

        Args:
          embedded: input embeddings from position 0 on: BOS, the image's, and those of `embed`.
          prefix: how many of them are BOS and image; 0 is a sequence without image, causal throughout.
        """
        positions = jnp.broadcast_to(jnp.arange(embedded.shape[1]), embedded.shape[:2])
        hidden, _, _ = self.text(embedded, positions, mask=prefix_mask(embedded.shape[1], prefix))
        return hidden

    def heads(self, hidden: Float[Array, "... D"], tokens: Int[Array, " A"] | None = None) -> HeadLogits:
        """Logits of hidden rows (before the final LayerNorm), of the whole vocabulary or of the given tokens only."""
        coord, size = self.region(hidden)
        return HeadLogits(token=self.text.logits(hidden, tokens), coord=coord, size=size)

    def __call__(
        self,
        crops: UInt8[Array, "I C S S 3"],
        stitch_rows: Float[Array, "I C g g"],
        stitch_cols: Float[Array, "I C g g"],
        prompt_ids: Int[Array, "N P"],
        prompt_values: Float[Array, "N P 2"],
        prompt_lengths: Int[Array, " N"],
    ) -> HeadLogits:
        """Logits at the end of each prompt; touches every parameter, so `init` goes through here."""
        _, prefix, _ = self.prefix(crops, stitch_rows, stitch_cols)
        hidden, _, _ = self.prompt(prefix, prompt_ids, prompt_values, prompt_lengths)
        last = jnp.take_along_axis(hidden, (prompt_lengths - 1)[:, None, None], axis=1)[:, 0]
        return self.heads(last)


def _mark_valid(context: LayerContext, valid: Bool[Array, "N P"]) -> LayerContext:
    def mark(segment):  # type: ignore[no-untyped-def]
        layers = segment.keys.shape[0]
        return segment.replace(valid=jnp.broadcast_to(valid, (layers, *valid.shape)))

    return LayerContext(dense=mark(context.dense), routed=mark(context.routed))
