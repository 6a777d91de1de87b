"""The one attention of the text decoder: training, prefill and cached decoding run the same code.

Letters: N rows, T queries, S keys, H heads, d head width, D = H*d, M segments that rows share, C seats at them,
G = C/M seats per segment.
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
    """Keys and values that several rows share (an image, a prompt) or that each row owns.

    Heads come before keys: a product over one key per step then reads memory in order.
    """

    keys: Float[Array, "... M H S d"]
    values: Float[Array, "... M H S d"]
    valid: Bool[Array, "M S"] | None
    """Which keys exist; None means all of them."""


@flax.struct.dataclass
class Cache:
    """One layer's keys and values of the tokens decoded so far, updated in place."""

    keys: Float[Array, "N H S d"]
    values: Float[Array, "N H S d"]


@flax.struct.dataclass
class Seats:
    """Which rows share which segment, where rows are in no order.

    The seats of a segment are consecutive; every kind of segment has the same number of seats in all. A row sits on
    one seat; seats without a row hold any row, and what they compute is read by nobody.
    """

    row_of_seat: Int[Array, " C"]
    seat_of_row: Int[Array, " N"]


def attend(
    queries: Float[Array, "N T H d"],
    shared: list[Segment],
    own: Segment,
    mask: Bool[Array, "*#N T S"] | None,
    seats: Seats | None = None,
) -> Float[Array, "N T H d"]:
    """Softmax attention over the union of several key segments, scale 1/sqrt(d), softmax in float32.

    Keys are never copied to the rows that share them: queries are regrouped per segment instead, and the
    partial results are merged by their common maximum (the log-sum-exp identity).

    Args:
      queries: rotated and scaled queries.
      shared: segments that several rows read, all of their valid keys.
      own: one segment per row.
      mask: own queries x own keys, True where the key is seen; None means all.
      seats: who reads which shared segment; None means that rows of one segment are consecutive.
    """
    rows, _, heads, _ = queries.shape
    queries_NHTd = queries.transpose(0, 2, 1, 3)
    seated = queries_NHTd if seats is None else queries_NHTd[seats.row_of_seat]

    def to_rows(x_MHGx: Array) -> Array:
        x_CHx = jnp.swapaxes(x_MHGx, 1, 2).reshape(len(seated), heads, *x_MHGx.shape[3:])
        return x_CHx if seats is None else x_CHx[seats.seat_of_row]

    logits_NHTS = _logits("NHTd,NHSd->NHTS", queries_NHTd, own)
    if mask is not None:
        logits_NHTS = jnp.where(jnp.broadcast_to(mask, (rows, *mask.shape[-2:]))[:, None], logits_NHTS, -jnp.inf)
    peak_NHT = logits_NHTS.max(axis=-1)
    scores = []
    for segment in shared:
        grouped = jnp.swapaxes(seated.reshape(len(segment.keys), -1, *seated.shape[1:]), 1, 2)
        logits_MHGTS = _logits("MHGTd,MHSd->MHGTS", grouped, segment)
        if segment.valid is not None:
            logits_MHGTS = jnp.where(segment.valid[:, None, None, None, :], logits_MHGTS, -jnp.inf)
        scores.append(logits_MHGTS)
        peak_NHT = jnp.maximum(peak_NHT, to_rows(logits_MHGTS.max(axis=-1)))
    peak_NHT = jax.lax.stop_gradient(peak_NHT)

    weights_NHTS = jnp.exp(logits_NHTS - peak_NHT[..., None])
    total_NHT, mixed_NHTd = weights_NHTS.sum(axis=-1), _mix("NHTS,NHSd->NHTd", weights_NHTS, own)
    peak_CHT = peak_NHT if seats is None else peak_NHT[seats.row_of_seat]
    for segment, logits_MHGTS in zip(shared, scores):
        peak_MHGT = jnp.swapaxes(peak_CHT.reshape(len(segment.keys), -1, *peak_CHT.shape[1:]), 1, 2)
        weights_MHGTS = jnp.exp(logits_MHGTS - peak_MHGT[..., None])
        total_NHT += to_rows(weights_MHGTS.sum(axis=-1))
        mixed_NHTd += to_rows(_mix("MHGTS,MHSd->MHGTd", weights_MHGTS, segment))
    return (mixed_NHTd / total_NHT[..., None]).transpose(0, 2, 1, 3).astype(queries.dtype)


def _logits(product: str, queries: Array, segment: Segment) -> Array:
    scale = queries.shape[-1] ** -0.5
    return jnp.einsum(product, queries, segment.keys, preferred_element_type=jnp.float32) * scale


def _mix(product: str, weights: Array, segment: Segment) -> Array:
    return jnp.einsum(product, weights.astype(segment.values.dtype), segment.values, preferred_element_type=jnp.float32)


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

        own = fresh = Segment(keys=key.transpose(0, 2, 1, 3), values=value.transpose(0, 2, 1, 3), valid=None)
        if cache is not None:
            assert index is not None, "a cache needs the places to write to"
            place = (jnp.arange(rows)[:, None], slice(None), index)
            cache = Cache(keys=cache.keys.at[place].set(key), values=cache.values.at[place].set(value))
            own = Segment(keys=cache.keys, values=cache.values, valid=None)
        mixed = attend(query, context, own, mask, seats)
        out = nn.Dense(c.width, dtype=self.dtype, name="proj")(mixed.reshape(rows, count, c.width))
        return out, fresh, cache
