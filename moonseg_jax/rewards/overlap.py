"""Axis 1, the base: how much of the object the drawn mask covers, and no more. All values lie in [0, 1]."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

AVERAGED_THRESHOLDS = np.arange(50, 100, 5, dtype=np.float32) / np.float32(100)
""".5, .55, … .95, the thresholds of COCO's average precision."""


def mask_iou(coverage: Float[Array, "N R R"], truth: Bool[Array, "N R R"]) -> Float[Array, " N"]:
    """IoU of the drawn mask (coverage above one half) with the ground truth; empty against empty is 1."""
    drawn = coverage > 0.5
    intersection = jnp.sum(drawn & truth, axis=(1, 2)).astype(jnp.float32)
    union = jnp.sum(drawn | truth, axis=(1, 2)).astype(jnp.float32)
    return jnp.where(union > 0, intersection / jnp.maximum(union, 1.0), 1.0)


def soft_iou(coverage: Float[Array, "*batch R R"], truth: Bool[Array, "*batch R R"]) -> Float[Array, "*batch"]:
    """IoU of exact areas: sum of min(c, g) over sum of max(c, g), coverage c in [0, 1]; nothing against nothing is 1.

    Differentiable with respect to the coverage (Rahman and Wang 2016, with the product, which is the minimum here).
    """
    both = jnp.sum(jnp.where(truth, coverage, 0.0), axis=(-2, -1))
    either = jnp.sum(jnp.where(truth, 1.0, coverage), axis=(-2, -1))
    return jnp.where(either > 0, both / jnp.where(either > 0, either, 1.0), 1.0)


def soft_dice(coverage: Float[Array, "*batch R R"], truth: Bool[Array, "*batch R R"]) -> Float[Array, "*batch"]:
    """Dice coefficient of exact areas: 2 sum of c g over (sum of c + sum of g); nothing against nothing is 1.

    The linear form of Sudre et al. 2017; Milletari et al. 2016 square the terms of the denominator.
    """
    both = jnp.sum(jnp.where(truth, coverage, 0.0), axis=(-2, -1))
    total = jnp.sum(coverage + truth, axis=(-2, -1))
    return jnp.where(total > 0, 2.0 * both / jnp.where(total > 0, total, 1.0), 1.0)


def iou_at_least(iou: Float[Array, "*batch"], at: float) -> Float[Array, "*batch"]:
    """1 where the IoU reaches a threshold, else 0 (Seg-Zero pays boxes so, at .5)."""
    return (iou >= at).astype(jnp.float32)


def mean_over_thresholds(iou: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Share of the thresholds .5, .55, … .95 that the IoU reaches (the detection reward of big_vision)."""
    return jnp.mean((iou[..., None] >= AVERAGED_THRESHOLDS).astype(jnp.float32), axis=-1)


def log_iou(iou: Float[Array, "*batch"], epsilon: float) -> Float[Array, "*batch"]:
    """-log(1 - IoU + ε), moved and scaled so that IoU 0 gives 0 and IoU 1 gives 1.

    That is log((1 + ε) / (1 + ε - IoU)) / log((1 + ε) / ε): each halving of the error earns about the same.
    """
    scaled = jnp.log((1.0 + epsilon) / (1.0 + epsilon - iou)) / math.log((1.0 + epsilon) / epsilon)
    return jnp.clip(scaled, 0.0, 1.0)


def iou_power(iou: Float[Array, "*batch"], power: float) -> Float[Array, "*batch"]:
    """IoU^k: k above 1 pays for the last points, below 1 for the first."""
    return iou**power
