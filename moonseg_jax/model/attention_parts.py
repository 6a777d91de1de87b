"""Attention over some of the keys; parts over different keys merge by the log-sum-exp identity."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.model.turns import set_wanted

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
    """Computes the wanted ones of n parts, `at_once` per turn; the others have seen no key.

    Args:
      compute: numbers of some parts → these parts, along the first axis.
      wanted: which parts to compute.
      at_once: c.
    """
    like = jax.eval_shape(compute, jnp.zeros(at_once, jnp.int32))
    empty = jax.tree.map(lambda leaf: jnp.zeros((len(wanted), *leaf.shape[1:]), leaf.dtype), like)
    empty = empty.replace(peak=jnp.full_like(empty.peak, -jnp.inf))
    return set_wanted(empty, wanted, compute, at_once)
