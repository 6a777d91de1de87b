"""The text decoder: parallel residual blocks, dense MLPs first, routed experts after (spec §5)."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import TextConfig
from moonseg_jax.model.attention import Cache, Segment, TauAttention
from moonseg_jax.model.moe import RoutedMLP
from moonseg_jax.model.stacks import unrolled

EPSILON = 1e-5
"""Of every LayerNorm in the model."""


@flax.struct.dataclass
class LayerContext:
    """Keys and values of one earlier segment, per kind of block (the layers of one kind are stacked)."""

    dense: Segment
    routed: Segment


@flax.struct.dataclass
class DecoderCache:
    """Caches of the own tokens, per kind of block."""

    dense: Cache
    routed: Cache


def empty_cache(config: TextConfig, rows: int, slots: int, dtype: jnp.dtype = jnp.float32) -> DecoderCache:
    """A zero cache for `rows` sequences of up to `slots` own tokens."""

    def zeros(layers: int) -> Cache:
        # A stack without layers never runs, but its body is traced, and writes to the cache of one layer.
        shape = (max(layers, 1), rows, slots, config.heads, config.head_width)
        return Cache(keys=jnp.zeros(shape, dtype), values=jnp.zeros(shape, dtype))

    return DecoderCache(dense=zeros(config.dense_layers), routed=zeros(config.layers - config.dense_layers))


class DenseMLP(nn.Module):
    """Linear, tanh GELU, linear."""

    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_NTD: Float[Array, "N T D"]) -> Float[Array, "N T D"]:
        """Hidden rows of the same width."""
        hidden = nn.Dense(self.config.mlp_width, dtype=self.dtype, name="fc1")(x_NTD)
        return nn.Dense(self.config.width, dtype=self.dtype, name="fc2")(nn.gelu(hidden, approximate=True))


class Block(nn.Module):
    """x + attention(n) + mlp(n) with n = LayerNorm(x); written as a scan body over stacked layers."""

    config: TextConfig
    routed: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, carry, layer, context, replay, positions_NT, mask, index):  # type: ignore[no-untyped-def]
        """Carry is (hidden rows, cache or None); returns it with fresh keys and values and the chosen experts."""
        x_NTD, cache = carry
        normed = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="ln")(x_NTD)
        attention = TauAttention(self.config, dtype=self.dtype, name="attn")
        mixed, fresh, cache = attention(normed, positions_NT, context, mask, cache, layer, index)
        chosen = None
        if self.routed:
            out, chosen = RoutedMLP(self.config, dtype=self.dtype, name="moe")(normed, replay)
        else:
            out = DenseMLP(self.config, dtype=self.dtype, name="mlp")(normed)
        return (x_NTD + mixed + out, cache), (fresh, chosen)


class TextDecoder(nn.Module):
    """Embedding table, stacked blocks and the output head."""

    config: TextConfig
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        """Two scanned stacks: `dense` and `routed`."""
        c = self.config
        # Rows of unit size: blocks add O(1) to the residual stream, and a small embedding would drown in it.
        self.embedding = nn.Embed(
            c.vocabulary, c.width, dtype=self.dtype, embedding_init=nn.initializers.normal(1.0)
        )  # fmt: skip
        self.dense = self._stack(c.dense_layers, routed=False)
        self.routed = self._stack(c.layers - c.dense_layers, routed=True)
        self.post_ln = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype)
        self.head = nn.Dense(c.vocabulary, dtype=self.dtype)

    def _stack(self, layers: int, routed: bool) -> nn.Module:
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        scanned = nn.scan(
            block, variable_axes={"params": 0, "intermediates": 0}, split_rngs={"params": True}, length=layers,
            in_axes=(0, 0, 0, nn.broadcast, nn.broadcast, nn.broadcast), unroll=unrolled(layers),
        )  # fmt: skip
        return scanned(self.config, routed=routed, dtype=self.dtype)

    def embed(self, token_ids: Int[Array, "..."]) -> Float[Array, "... D"]:
        """Rows of the embedding table."""
        return self.embedding(token_ids)

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 vocabulary logits: Linear(LayerNorm(hidden))."""
        return self.head(self.post_ln(hidden)).astype(jnp.float32)

    def __call__(
        self,
        x_NTD: Float[Array, "N T D"],
        positions_NT: Int[Array, "N T"],
        context: tuple[LayerContext, ...] = (),
        mask: Bool[Array, "*#N T S"] | None = None,
        cache: DecoderCache | None = None,
        index: Int[Array, ""] | None = None,
        replay: Int[Array, "L N T k"] | None = None,
    ) -> tuple[Float[Array, "N T D"], LayerContext, DecoderCache | None, Int[Array, "L N T k"]]:
        """Runs all blocks.

        Args:
          x_NTD: embeddings of the tokens to run.
          positions_NT: their absolute positions.
          context: earlier segments (image prefix, prompt), outermost first; rows sharing one are consecutive.
          mask: own queries x own keys, True where seen; None means all.
          cache: own tokens decoded so far, or None.
          index: cache slot of the first token of `x_NTD`.
          replay: experts to use per routed layer, or None to route.

        Returns:
          hidden rows before the final LayerNorm; fresh keys and values as a segment for later passes; the updated
          cache; the experts used.
        """
        c = self.config
        layers = (jnp.arange(c.dense_layers), jnp.arange(c.layers - c.dense_layers))
        (x_NTD, dense_cache), (dense, _) = self.dense(
            (x_NTD, None if cache is None else cache.dense), layers[0],
            [part.dense for part in context], None, positions_NT, mask, index,
        )  # fmt: skip
        (x_NTD, routed_cache), (routed, experts) = self.routed(
            (x_NTD, None if cache is None else cache.routed), layers[1],
            [part.routed for part in context], replay, positions_NT, mask, index,
        )  # fmt: skip
        if cache is not None:
            cache = DecoderCache(dense=dense_cache, routed=routed_cache)
        return x_NTD, LayerContext(dense=dense, routed=routed), cache, experts
