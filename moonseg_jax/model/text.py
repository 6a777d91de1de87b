"""The text decoder: parallel residual blocks, dense MLPs first, routed experts after (spec §5)."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import TextConfig
from moonseg_jax.model.attention import TauAttention
from moonseg_jax.model.dense import ACROSS, BACK, WHOLE, dense, embedding
from moonseg_jax.model.moe import RoutedMLP
from moonseg_jax.model.pages import Cache
from moonseg_jax.model.segments import Seats, Segment
from moonseg_jax.model.stacks import Remat, rematerialised, unrolled
from moonseg_jax.partition import split_as, split_rows

EPSILON = 1e-5
"""Of every LayerNorm in the model."""


@flax.struct.dataclass
class LayerContext:
    """Keys and values of one earlier segment, per kind of block (the layers of one kind are stacked)."""

    dense: Segment
    routed: Segment


class DenseMLP(nn.Module):
    """Linear, tanh GELU, linear."""

    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_NTD: Float[Array, "N T D"]) -> Float[Array, "N T D"]:
        """Hidden rows of the same width."""
        hidden = dense(self.config.mlp_width, dtype=self.dtype, name="fc1")(x_NTD)
        return dense(self.config.width, dtype=self.dtype, name="fc2", splits=BACK)(nn.gelu(hidden, approximate=True))


class Block(nn.Module):
    """x + attention(n) + mlp(n) with n = LayerNorm(x); a scan body over stacked layers, or one layer by itself."""

    config: TextConfig
    routed: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x_NTD: Float[Array, "N T D"],
        context: list[Segment],
        replay: Int[Array, "N T k"] | None,
        positions_NT: Int[Array, "N T"],
        mask: Bool[Array, "*#N T S"] | None,
        seats: Seats | None = None,
        cache: Cache | None = None,
        index: Int[Array, "N T"] | None = None,
    ) -> tuple[Float[Array, "N T D"], tuple[Segment, Int[Array, "N T k"] | None, Cache | None]]:
        """Hidden rows; fresh keys and values, the experts used, and the updated cache. See `TauAttention`."""
        x_NTD = split_rows(x_NTD)
        normed = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="ln")(x_NTD)
        attention = TauAttention(self.config, dtype=self.dtype, name="attn")
        mixed, fresh, cache = attention(normed, positions_NT, context, mask, seats, cache, index)
        chosen = None
        if self.routed:
            out, chosen = RoutedMLP(self.config, dtype=self.dtype, name="moe")(normed, replay)
        else:
            out = DenseMLP(self.config, dtype=self.dtype, name="mlp")(normed)
        return x_NTD + mixed + out, (fresh, chosen, cache)


class TextDecoder(nn.Module):
    """Embedding table, stacked blocks and the output head."""

    config: TextConfig
    dtype: jnp.dtype = jnp.float32
    remat: Remat = "none"

    def setup(self) -> None:
        """Two scanned stacks: `dense` and `routed`."""
        c = self.config
        # Rows of unit size: blocks add O(1) to the residual stream, and a small embedding would drown in it.
        self.embedding = embedding(
            c.vocabulary, c.width, dtype=self.dtype, init=nn.initializers.normal(1.0)
        )  # fmt: skip
        self.dense = self._stack(c.dense_layers, routed=False)
        self.routed = self._stack(c.layers - c.dense_layers, routed=True)
        self.post_ln = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype)
        self.head = dense(c.vocabulary, dtype=self.dtype)

    def _stack(self, layers: int, routed: bool) -> nn.Module:
        scanned = nn.scan(
            rematerialised(Block, self.remat), variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True}, length=layers,
            in_axes=(0, 0, nn.broadcast, nn.broadcast), unroll=unrolled(layers),
        )  # fmt: skip
        return scanned(self.config, routed=routed, dtype=self.dtype)

    def embed(self, token_ids: Int[Array, "..."]) -> Float[Array, "... D"]:
        """Rows of the embedding table."""
        return split_rows(self.embedding(token_ids))

    def logits(self, hidden: Float[Array, "... D"], tokens: Int[Array, " A"] | None = None) -> Float[Array, "... A"]:
        """Float32 logits, Linear(LayerNorm(hidden)), of the whole vocabulary or of the given tokens only."""
        if tokens is None:
            return self.head(self.post_ln(hidden)).astype(jnp.float32)
        parameters = self.head.variables["params"]
        kernel = split_as(split_as(parameters["kernel"].astype(self.dtype), ACROSS)[:, tokens], WHOLE)
        bias = split_as(parameters["bias"].astype(self.dtype)[tokens], WHOLE)
        return (self.post_ln(hidden) @ kernel + bias).astype(jnp.float32)

    def __call__(
        self,
        x_NTD: Float[Array, "N T D"],
        positions_NT: Int[Array, "N T"],
        context: tuple[LayerContext, ...] = (),
        mask: Bool[Array, "*#N T S"] | None = None,
        replay: Int[Array, "L N T k"] | None = None,
    ) -> tuple[Float[Array, "N T D"], LayerContext, Int[Array, "L N T k"]]:
        """Runs all blocks over whole segments; `decoding` runs them token by token.

        Args:
          x_NTD: embeddings of the tokens to run.
          positions_NT: their absolute positions.
          context: earlier segments (image prefix, prompt), outermost first; rows sharing one are consecutive.
          mask: own queries x own keys, True where seen; None means all.
          replay: experts to use per routed layer, or None to route.

        Returns:
          hidden rows before the final LayerNorm; fresh keys and values as a segment for later passes; the experts
          used.
        """
        x_NTD, (dense, _, _) = self.dense(x_NTD, [part.dense for part in context], None, positions_NT, mask)
        x_NTD, (routed, experts, _) = self.routed(x_NTD, [part.routed for part in context], replay, positions_NT, mask)
        return x_NTD, LayerContext(dense=dense, routed=routed), experts
