"""The routed experts' product against a dense product of the same useful work, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from moonseg_jax.bench.timing import fastest
from moonseg_jax.config import TextConfig, moondream3
from moonseg_jax.model.low_rank import Matrices
from moonseg_jax.model.moe import gated, grouped_experts, grouped_rows, ragged_experts

PRODUCTS = {"grouped": grouped_experts, "ragged": ragged_experts}
"""On a CPU `ragged_dot` multiplies every row with every expert: nothing to wait for there."""


def bench_experts(tokens: Sequence[int], text: TextConfig | None = None, repeats: int = 5) -> Iterator[dict[str, Any]]:
    """Times one routed layer with the published widths, and its useful work as two dense products.

    The dense side multiplies as many rows as there are assignments with the weights of experts in turn, so that it
    reads as many weights where there are few rows and reuses them where there are many.

    Args:
      tokens: token counts to measure, 1 or more.
      text: sizes; the full model's by default (1.6 GiB of float32 weights).
      repeats: the fastest of so many calls counts.

    Yields:
      For every token count: assignments, rows computed by the grouped product per assignment (its FLOPs over the
      ideal), seconds of all sides, and each product's seconds over the dense ones.
    """
    text = text or moondream3().text
    key = jax.random.key(0)
    up = jax.random.normal(key, (text.experts, text.width, 2 * text.expert_width)) * text.width**-0.5
    down = jax.random.normal(key, (text.experts, text.expert_width, text.width)) * text.expert_width**-0.5
    for count in tokens:
        yield _measure(text, up, down, count, repeats)


def _measure(text: TextConfig, up: Array, down: Array, tokens: int, repeats: int) -> dict[str, Any]:
    x = jax.random.normal(jax.random.key(1), (tokens, text.width))
    logits = jax.random.normal(jax.random.key(2), (tokens, text.experts))
    weights, chosen = jax.lax.top_k(logits, text.active_experts)
    inputs = (x, Matrices(up), Matrices(down), chosen, jax.nn.softmax(weights))
    assignments = chosen.size
    products = [name for name in PRODUCTS if name != "ragged" or jax.default_backend() != "cpu"]
    seconds = {name: _seconds(PRODUCTS[name], inputs, repeats) for name in products}
    used = min(assignments, text.experts)
    rows = jnp.resize(x, (used, max(assignments // used, 1), text.width))
    dense = _seconds(_dense, (rows, up[:used], down[:used]), repeats)
    return {
        "tokens": tokens, "assignments": assignments,
        "grouped_rows_per_assignment": round(grouped_rows(assignments, text.experts) / assignments, 3),
        "dense_seconds": round(dense, 5),
        **{f"{name}_seconds": round(value, 5) for name, value in seconds.items()},
        **{f"{name}_over_dense": round(value / dense, 2) for name, value in seconds.items()},
    }  # fmt: skip


def _dense(rows: Array, up: Array, down: Array) -> Array:
    """Evenly filled experts one after the other: the work without sorting, padding and scattering."""
    return jax.lax.map(lambda part: gated(part[0] @ part[1]) @ part[2], (rows, up, down))


def _seconds(function: Callable[..., Array], inputs: tuple[Any, ...], repeats: int) -> float:
    compiled = jax.jit(function)
    return fastest(lambda: compiled(*inputs).block_until_ready(), repeats).wall
