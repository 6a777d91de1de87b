"""The one attention of the text decoder: training, prefill and cached decoding run the same code.

Letters: N rows, T queries, S keys, H heads, d head width, D = H*d, M shared key segments, G = N/M rows per segment.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import TextConfig


@flax.struct.dataclass
class Segment:
    """Keys and values that G consecutive rows share (an image, a prompt) or that each row owns (G = 1)."""

    keys: Float[Array, "... M S H d"]
    values: Float[Array, "... M S H d"]
    valid: Bool[Array, "M S"] | None
    """Which keys exist; None means all of them."""


@flax.struct.dataclass
class Cache:
    """Keys and values of tokens decoded so far, all layers, updated in place."""

    keys: Float[Array, "L N S H d"]
    values: Float[Array, "L N S H d"]


def attend(
    queries: Float[Array, "N T H d"],
    segments: list[tuple[Segment, Bool[Array, "*#N T S"] | None]],
) -> Float[Array, "N T H d"]:
    """Softmax attention over the union of several key segments, scale 1/sqrt(d), softmax in float32.

    Keys are never copied to the rows that share them: queries are regrouped per segment instead, and the
    partial results are merged by their common maximum (the log-sum-exp identity).

    Args:
      queries: rotated and scaled queries; rows that share a segment are consecutive.
      segments: pairs of a segment and a mask over (query, key), True where the key is seen; None means all.
    """
    rows, count, heads, width = queries.shape
    scores = []
    for segment, mask in segments:
        shared = segment.keys.shape[0]
        grouped = queries.reshape(shared, rows // shared, count, heads, width)
        logits = jnp.einsum("MGTHd,MSHd->MHGTS", grouped, segment.keys, preferred_element_type=jnp.float32)
        logits = logits * width**-0.5
        if segment.valid is not None:
            logits = jnp.where(segment.valid[:, None, None, None, :], logits, -jnp.inf)
        if mask is not None:
            mask_MGTS = jnp.broadcast_to(mask, (rows, *mask.shape[-2:])).reshape(shared, -1, *mask.shape[-2:])
            logits = jnp.where(mask_MGTS[:, None], logits, -jnp.inf)
        scores.append(logits)

    def to_rows(x_MHGT: Array) -> Array:
        return x_MHGT.transpose(0, 2, 1, 3).reshape(rows, heads, count)

    def to_groups(x_NHT: Array, shared: int) -> Array:
        return x_NHT.reshape(shared, rows // shared, heads, count).transpose(0, 2, 1, 3)

    peak = jnp.max(jnp.stack([to_rows(s.max(axis=-1)) for s in scores]), axis=0)
    peak = jax.lax.stop_gradient(peak)
    total = jnp.zeros((rows, heads, count), jnp.float32)
    mixed = jnp.zeros((rows, count, heads, width), jnp.float32)
    for (segment, _), logits in zip(segments, scores):
        shared = segment.keys.shape[0]
        weights = jnp.exp(logits - to_groups(peak, shared)[..., None])
        total += to_rows(weights.sum(axis=-1))
        part = jnp.einsum(
            "MHGTS,MSHd->MGTHd", weights.astype(segment.values.dtype), segment.values,
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        mixed += part.reshape(rows, count, heads, width)
    return (mixed / total.transpose(0, 2, 1)[..., None]).astype(queries.dtype)


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
        cache: Cache | None,
        layer: Int[Array, ""],
        index: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "N T D"], Segment, Cache | None]:
        """Attends to `context`, then to the own tokens (fresh ones, or all cached ones after writing these).

        Args:
          x_NTD: normalised hidden rows.
          positions_NT: absolute positions, the image prefix included.
          context: this layer's keys and values of earlier segments.
          mask: own queries x own keys, True where seen; None means all (the image prefix).
          cache: all layers' own keys and values, or None to keep nothing.
          layer: this layer's row in the cache.
          index: slot of the first fresh token in the cache.

        Returns:
          output, fresh keys and values, updated cache.
        """
        c = self.config
        rows, count, _ = x_NTD.shape
        qkv = nn.Dense(3 * c.width, dtype=self.dtype, name="qkv")(x_NTD)
        gelu = nn.gelu(qkv, approximate=c.tau_gelu == "tanh")
        init = nn.initializers.normal(0.02)
        tau_q = self.param("tau_q", init, (3 * c.width, c.heads)).astype(self.dtype)
        tau_v = self.param("tau_v", init, (3 * c.width, c.heads)).astype(self.dtype)
        alpha = self.param("tau_alpha", nn.initializers.zeros, (c.heads,))
        log_position = jnp.log(positions_NT.astype(jnp.float32) + 1.0)
        tau_position = (0.5 + nn.sigmoid(alpha * log_position[..., None])).astype(self.dtype)

        query, key, value = (part.reshape(rows, count, c.heads, c.head_width) for part in jnp.split(qkv, 3, -1))
        query = query * (jnp.tanh(gelu @ tau_q) + tau_position)[..., None]
        value = value * (jnp.tanh(gelu @ tau_v) + tau_position)[..., None]
        query = rotate(query, positions_NT, c.rope_theta)
        key = rotate(key, positions_NT, c.rope_theta)
        self.sow("intermediates", "query", query)

        own = fresh = Segment(keys=key, values=value, valid=None)
        if cache is not None:
            assert index is not None, "a cache needs the slot to write to"
            start = (layer, 0, index, 0, 0)
            cache = Cache(
                keys=jax.lax.dynamic_update_slice(cache.keys, key[None].astype(cache.keys.dtype), start),
                values=jax.lax.dynamic_update_slice(cache.values, value[None].astype(cache.values.dtype), start),
            )
            own = Segment(keys=cache.keys[layer], values=cache.values[layer], valid=None)
        mixed = attend(query, [*((segment, None) for segment in context), (own, mask)])
        out = nn.Dense(c.width, dtype=self.dtype, name="proj")(mixed.reshape(rows, count, c.width))
        return out, fresh, cache
