"""Sums and counts over learned tokens, and what they are divided by.

A figure of the whole batch is the sum of its micro-batches' sums over the sum of their counts. That holds for
gradients too: differentiate the sum of each micro-batch, add, and divide once, at the end, because counts depend on
masks alone. For that the denominators are fixed by kind:

- `token-mean` counts learned tokens, so long completions weigh more;
- `sequence-mean` divides each completion by its own length, inside the sum, and counts completions;
- `fixed-length` divides each completion by one constant, inside the sum, and counts completions.

A completion counts if any of its tokens is learned. An effective sample size is no mean of parts: it travels as three
sums.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from moonseg_jax.types import SumAndCount

Aggregation = Literal["token-mean", "sequence-mean", "fixed-length"]


class WeightSums(NamedTuple):
    """Of importance weights w, one per token."""

    total: Float[Array, ""]
    """Sum of w."""
    squares: Float[Array, ""]
    """Sum of w²."""
    tokens: Float[Array, ""]
    """Their number, n."""


def aggregated(
    values: Float[Array, "N T"], learned: Bool[Array, "N T"], aggregation: Aggregation, fixed_length: float = 1.0
) -> SumAndCount:
    """Values per token on their way to one figure, by the denominators the module lists.

    Args:
      values: anything where nothing is learned.
      learned: which tokens count.
      aggregation: see the module.
      fixed_length: the constant of `fixed-length`.
    """
    values, count = jnp.where(learned, values, 0.0), denominator(learned, aggregation)
    if aggregation == "sequence-mean":
        values = values / _lengths(learned)
    return jnp.sum(values) / (fixed_length if aggregation == "fixed-length" else 1.0), count


def denominator(learned: Bool[Array, "N T"], aggregation: Aggregation) -> Float[Array, ""]:
    """What sums of this aggregation are divided by in the end: known before any forward pass."""
    return number_of(learned if aggregation == "token-mean" else jnp.any(learned, axis=1))


def over_tokens(values: Num[Array, "N T"] | Bool[Array, "N T"], learned: Bool[Array, "N T"]) -> SumAndCount:
    """Sum over learned tokens, and their number."""
    return jnp.sum(jnp.where(learned, values, 0.0)), number_of(learned)


def sequence_mean(values: Float[Array, "N T"], learned: Bool[Array, "N T"]) -> Float[Array, "N T"]:
    """The mean over a sequence's learned tokens, at each of them; 0 elsewhere."""
    total = jnp.sum(jnp.where(learned, values, 0.0), axis=1, keepdims=True)
    return jnp.where(learned, total / _lengths(learned), 0.0)


def weight_sums(weights: Float[Array, "N T"], learned: Bool[Array, "N T"]) -> WeightSums:
    """The sums of the weights of learned tokens."""
    weights = jnp.where(learned, weights, 0.0)
    return WeightSums(jnp.sum(weights), jnp.sum(weights**2), number_of(learned))


def effective_sample_size(sums: WeightSums) -> Float[Array, ""]:
    """(Σw)² / (n Σw²) of importance weights (Kish 1965): 1 where all are equal, 1/n where one has all the weight.

    Add the sums of micro-batches, devices or hosts first; 0 where nothing was counted.
    """
    return sums.total**2 / jnp.maximum(sums.tokens * sums.squares, jnp.finfo(sums.total.dtype).tiny)


def number_of(where: Bool[Array, "*any"]) -> Float[Array, ""]:
    """How many are true, as a count that sums travel with."""
    return jnp.sum(where).astype(jnp.float32)


def _lengths(learned: Bool[Array, "N T"]) -> Float[Array, "N 1"]:
    return jnp.maximum(jnp.sum(learned, axis=1, keepdims=True), 1).astype(jnp.float32)
