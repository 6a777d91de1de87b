"""Rewards of rollouts: pure functions of arrays."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def mask_iou(coverage: Float[Array, "N R R"], truth: Bool[Array, "N R R"]) -> Float[Array, " N"]:
    """IoU of the drawn mask (coverage above one half) with the ground truth; empty against empty is 1."""
    drawn = coverage > 0.5
    intersection = jnp.sum(drawn & truth, axis=(1, 2)).astype(jnp.float32)
    union = jnp.sum(drawn | truth, axis=(1, 2)).astype(jnp.float32)
    return jnp.where(union > 0, intersection / jnp.maximum(union, 1.0), 1.0)


def shaped_reward(iou: Float[Array, " N"], lengths: Int[Array, " N"], length_penalty: float) -> Float[Array, " N"]:
    """IoU less a price per completion token."""
    return iou - length_penalty * lengths
