"""Attention over some of the keys; parts over different keys merge by the log-sum-exp identity."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

WORTH_CHOOSING = 1 << 20
"""Numbers of a layer's keys from which on it pays to find out which of them are needed, and to read only those."""


@flax.struct.dataclass
class Part:
    """What queries take from some of the keys, before division by the sum of all weights."""

    peak: Float[Array, "*rows"]
    """Largest logit, -inf where no key is seen. Gradients do not pass through it: they cancel."""
    total: Float[Array, "*rows"]
    """Sum of exp(logit - peak)."""
    mixed: Float[Array, "*rows d"]
    """Sum of values, weighted so."""


def over_keys(
    queries: Float[Array, "*n q d"],
    keys: Float[Array, "*n S d"],
    values: Float[Array, "*n S d"],
    seen: Bool[Array, "*#n #q S"] | None,
) -> Part:
    """Attention with scale 1/sqrt(d) and float32 weights.

    Args:
      queries: rotated and scaled.
      keys: rotated.
      values: of the keys.
      seen: which queries see which keys; None means that all see all.

    Returns:
      a part with rows [*n, q].
    """
    logits = jnp.einsum("...qd,...Sd->...qS", queries, keys, preferred_element_type=jnp.float32)
    logits *= queries.shape[-1] ** -0.5
    if seen is not None:
        logits = jnp.where(seen, logits, -jnp.inf)
    peak = jax.lax.stop_gradient(logits.max(axis=-1))
    weights = jnp.exp(logits - jnp.where(peak == -jnp.inf, 0.0, peak)[..., None])
    product = functools.partial(jnp.einsum, "...qS,...Sd->...qd", preferred_element_type=jnp.float32)
    return Part(peak=peak, total=weights.sum(axis=-1), mixed=product(weights.astype(values.dtype), values))


def merge(parts: list[Part]) -> Float[Array, "*rows d"]:
    """Attention over the union of the parts' keys, of which every row sees at least one."""
    peak = functools.reduce(jnp.maximum, [part.peak for part in parts])
    total, mixed = jnp.zeros(()), jnp.zeros(())
    for part in parts:
        scale = jnp.exp(part.peak - peak)
        total, mixed = total + part.total * scale, mixed + part.mixed * scale[..., None]
    return mixed / total[..., None]


def merge_axis(part: Part, axis: int) -> Part:
    """Joins parts that lie along one axis of the rows; at least one of them must have seen a key."""
    peak = part.peak.max(axis=axis, keepdims=True)
    scale = jnp.exp(part.peak - peak)
    return Part(
        peak=peak.squeeze(axis),
        total=jnp.sum(part.total * scale, axis=axis),
        mixed=jnp.einsum("npht,nphtd->nhtd", scale, part.mixed),
    )


def in_turns(compute: Callable[[Int[Array, " c"]], Part], wanted: Bool[Array, " n"], at_once: int) -> Part:
    """Computes the wanted ones of n parts, `at_once` per turn, in as many turns as it takes.

    Args:
      compute: numbers of some parts → these parts, along the first axis.
      wanted: which parts to compute; the others are empty.
      at_once: c.
    """
    count, number = len(wanted), jnp.sum(wanted)
    order = jnp.nonzero(wanted, size=count + at_once, fill_value=0)[0]
    shapes = jax.eval_shape(compute, order[:at_once])
    empty = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), shapes)
    empty = empty.replace(peak=jnp.full_like(empty.peak, -jnp.inf))

    def turn(carry: tuple[Array, Part]) -> tuple[Array, Part]:
        start, done = carry
        which = jax.lax.dynamic_slice_in_dim(order, start, at_once)
        there = jnp.where(start + jnp.arange(at_once) < number, which, count)
        put = jax.tree.map(lambda leaf, fresh: leaf.at[there].set(fresh, mode="drop"), done, compute(which))
        return start + at_once, put

    return jax.lax.while_loop(lambda carry: carry[0] < number, turn, (jnp.zeros((), jnp.int32), empty))[1]
