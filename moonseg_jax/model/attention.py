"""The one attention of the text decoder: training, prefill and cached decoding run the same code.

Letters: N rows, T queries, S keys, H heads, d head width, D = H*d, M segments that rows share, C seats at them,
G = C/M seats per segment.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import TextConfig
from moonseg_jax.model.attention_parts import Part, merge, over_keys
from moonseg_jax.model.dense import BACK, WHOLE, dense
from moonseg_jax.model.pages import Cache, over_pages, write
from moonseg_jax.model.segments import Seats, Segment, over_segment
from moonseg_jax.partition import split_as, split_heads


def attend(queries: Float[Array, "N H T d"], shared: list[Segment], seats: Seats | None, own: Part) -> Array:
    """Softmax attention over the union of shared segments and own tokens.

    Args:
      queries: rotated and scaled queries.
      shared: segments that several rows read, all of their valid keys.
      seats: who reads which shared segment; None means that rows of one segment are consecutive.
      own: what the queries take from their rows' own tokens.

    Returns:
      [N, H, T, d] in float32.
    """
    return merge([own, *(over_segment(queries, segment, seats) for segment in shared)])


def prefix_mask(count: int, prefix: int) -> Bool[Array, "count count"]:
    """Which keys a query of a whole sequence sees: all before it and itself, and within the prefix all (spec §5).

    Args:
      count: tokens of the sequence.
      prefix: tokens of BOS and image, which see each other; 0 where there is no image.
    """
    position = jnp.arange(count)
    return (position <= position[:, None]) | (jnp.maximum(position, position[:, None]) < prefix)


def rotate(x: Float[Array, "N T H d"], positions: Int[Array, "N T"], theta: float) -> Float[Array, "N T H d"]:
    """Rotary position embedding of the first half of the head width, as NeoX halves (spec §5).

    With r = d/2 rotating dimensions, the pair (x[i], x[i + r/2]) turns by position * theta**(-2i/r).
    """
    rotating = x.shape[-1] // 2
    half = rotating // 2
    frequency = theta ** (-2.0 * jnp.arange(half, dtype=jnp.float32) / rotating)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = x[..., :half].astype(jnp.float32), x[..., half:rotating].astype(jnp.float32)
    turned = jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
    return jnp.concatenate([turned.astype(x.dtype), x[..., rotating:]], axis=-1)


class TauAttention(nn.Module):
    """Multi-head attention whose queries and values are scaled by content and position (tau attention, spec §5)."""

    config: TextConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_NTD: Float[Array, "N T D"],
        positions_NT: Int[Array, "N T"],
        context: list[Segment],
        mask: Bool[Array, "*#N T S"] | None,
        seats: Seats | None,
        cache: Cache | None,
        index: Int[Array, "N T"] | None,
    ) -> tuple[Float[Array, "N T D"], Segment, Cache | None]:
        """Attends to `context`, then to the own tokens (fresh ones, or all cached ones after writing these).

        Args:
          x_NTD: normalised hidden rows.
          positions_NT: absolute positions, the image prefix included.
          context: this layer's keys and values of earlier segments.
          mask: own queries x own keys, True where seen; None means all (the image prefix).
          seats: see `attend`.
          cache: this layer's own keys and values, or None to keep nothing.
          index: where in the cache the fresh tokens go.

        Returns:
          output, fresh keys and values, updated cache.
        """
        c = self.config
        rows, count, _ = x_NTD.shape
        qkv = dense(3 * c.width, dtype=self.dtype, name="qkv")(x_NTD)
        gelu = nn.gelu(qkv, approximate=c.tau_gelu == "tanh")
        init = nn.initializers.normal(0.02)
        tau_q, tau_v = (
            split_as(self.param(name, init, (3 * c.width, c.heads)).astype(self.dtype), WHOLE)
            for name in ("tau_q", "tau_v")
        )
        alpha = self.param("tau_alpha", nn.initializers.zeros, (c.heads,))
        log_position = jnp.log(positions_NT.astype(jnp.float32) + 1.0)
        tau_position = (0.5 + nn.sigmoid(alpha * log_position[..., None])).astype(self.dtype)

        query, key, value = (
            split_heads(part.reshape(rows, count, c.heads, c.head_width), 2) for part in jnp.split(qkv, 3, -1)
        )
        query = query * (jnp.tanh(gelu @ tau_q) + tau_position)[..., None]
        value = value * (jnp.tanh(gelu @ tau_v) + tau_position)[..., None]
        query = rotate(query, positions_NT, c.rope_theta)
        key = rotate(key, positions_NT, c.rope_theta)
        self.sow("intermediates", "query", query)

        query_NHTd, keys, values = (split_heads(part.transpose(0, 2, 1, 3), 1) for part in (query, key, value))
        fresh = Segment(keys=keys, values=values, valid=None)
        if cache is None:
            own = over_keys(query_NHTd, fresh.keys, fresh.values, None if mask is None else mask[..., None, :, :])
        else:
            assert index is not None, "a cache needs the places to write to"
            cache = write(cache, key, value, index)
            own = over_pages(query_NHTd, cache, index)
        mixed_NHTd = attend(query_NHTd, context, seats, own)
        mixed = mixed_NHTd.transpose(0, 2, 1, 3).astype(self.dtype)
        out = dense(c.width, dtype=self.dtype, name="proj", splits=BACK)(mixed.reshape(rows, count, c.width))
        return out, fresh, cache
