"""Optimizers: Muon for matrices, Adam for the rest; warm-up, then cosine decay."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """One optimizer with its schedule."""

    name: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 3e-3
    """Peak rate; of the matrices where the optimizer is Muon."""
    adam_learning_rate: float = 1e-3
    """Peak rate of vectors, embeddings and Fourier features under Muon."""
    warmup_steps: int = 100
    final_fraction: float = 0.05
    """Rate at the end, as a fraction of the peak."""
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the moments between steps; bfloat16 halves them, and rounds them at every step."""


ADAM_ONLY = (
    "embedding",
    "position",
    "coord_frequencies",
    "size_frequencies",
    "tau_q",
    "tau_v",
    "router",
    "head",
    "lora_a",
    "lora_b",
)
"""Parameters that are tables or output layers rather than hidden matrices: Muon leaves them to Adam."""


def _dimensions(params: Any) -> Any:
    """Names the matrix dimensions of each parameter for Muon: the last two; None gives a leaf to Adam."""

    def of_leaf(path: tuple, leaf: Any) -> MuonDimensionNumbers | None:
        names = [getattr(part, "key", "") for part in path]
        stacked = any(name in ("blocks", "dense", "routed") for name in names)
        matrix = leaf.ndim >= (3 if stacked else 2) and not any(name in ADAM_ONLY for name in names)
        return MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1) if matrix else None

    return jax.tree_util.tree_map_with_path(of_leaf, params)


def schedule(config: OptimizerConfig, peak: float, steps: int) -> optax.Schedule:
    """Linear warm-up to `peak`, then cosine decay to its final fraction at `steps`."""
    warmup = min(config.warmup_steps, max(steps // 2, 1))
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1), peak * config.final_fraction)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer for a run of `steps` updates."""
    rate = schedule(config, config.learning_rate, steps)
    if config.name == "adamw":
        update = optax.adamw(rate, b2=0.98, weight_decay=config.weight_decay)
    else:
        update = muon(
            rate, weight_decay=config.weight_decay, adam_b2=0.98,
            adam_learning_rate=schedule(config, config.adam_learning_rate, steps),
            muon_weight_dimension_numbers=_dimensions,
        )  # fmt: skip
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), kept_in(update, config.state_dtype))


def kept_in(
    update: optax.GradientTransformation, dtype: Literal["float32", "bfloat16"]
) -> optax.GradientTransformation:
    """The same optimizer, its moments kept in another type between steps and worked on in float32."""
    if dtype == "float32":
        return update

    def cast(state: Any, wanted: Any, given: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(wanted) if leaf.dtype == given and leaf.ndim else leaf, state)

    def init(params: Any) -> Any:
        return cast(update.init(params), jnp.bfloat16, jnp.float32)

    def step(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = update.update(gradients, cast(state, jnp.float32, jnp.bfloat16), params)
        return updates, cast(state, jnp.bfloat16, jnp.float32)

    return optax.GradientTransformation(init, step)
