"""Optimizers: Muon for matrices, Adam for the rest; warm-up, then cosine decay."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
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


ADAM_ONLY = (
    "embedding",
    "position",
    "coord_frequencies",
    "size_frequencies",
    "tau_q",
    "tau_v",
    "router",
    "head",
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
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
