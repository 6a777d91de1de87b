"""Axis 3, the box: a first signal while masks are still poor. All values lie in [0, 1]."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def box_of_mask(mask: Bool[Array, "R C"]) -> Float[Array, " 4"]:
    """Tight box `cx, cy, w, h` of a mask, in units of the image; zeros for an empty mask."""
    (top, bottom), (left, right) = (_extent(jnp.any(mask, axis=axis)) for axis in (1, 0))
    return jnp.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


def _extent(occupied: Bool[Array, " n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """First occupied place and the one after the last, as shares of the length; zeros where none is."""
    length = occupied.shape[0]
    first, end = jnp.argmax(occupied), length - jnp.argmax(occupied[::-1])
    some = jnp.any(occupied)
    return jnp.where(some, first / length, 0.0), jnp.where(some, end / length, 0.0)


def box_iou(box: Float[Array, "*batch 4"], true_box: Float[Array, "*batch 4"]) -> Float[Array, "*batch"]:
    """IoU of boxes `cx, cy, w, h`; two boxes without area give 1. Sizes below 0 count as 0."""
    (low, high), (true_low, true_high) = (_corners(one) for one in (box, true_box))
    overlap = jnp.maximum(jnp.minimum(high, true_high) - jnp.maximum(low, true_low), 0.0)
    both = overlap[..., 0] * overlap[..., 1]
    areas = [jnp.prod(end - start, axis=-1) for start, end in ((low, high), (true_low, true_high))]
    either = areas[0] + areas[1] - both
    return jnp.where(either > 0, jnp.clip(both / jnp.where(either > 0, either, 1.0), 0.0, 1.0), 1.0)


def box_closeness(
    box: Float[Array, "*batch 4"], true_box: Float[Array, "*batch 4"], reach: float
) -> Float[Array, "*batch"]:
    """1 - mean |difference| of the four sides' places / reach, at least 0.

    Seg-Zero pays 1 where the L1 distance of the sides is below 10 px; this is the same measure without the step.

    Args:
      box: `cx, cy, w, h` in units of the image.
      true_box: the same.
      reach: mean distance from which on nothing is earned, in units of the image.
    """
    sides, true_sides = (jnp.concatenate(_corners(one), axis=-1) for one in (box, true_box))
    return jnp.maximum(1.0 - jnp.mean(jnp.abs(sides - true_sides), axis=-1) / reach, 0.0)


def box_until_good(overlap: Float[Array, "*batch"], iou: Float[Array, "*batch"], good: float) -> Float[Array, "*batch"]:
    """The IoU of the boxes, and 1 as soon as the mask's own IoU is good: then the box has nothing left to teach."""
    return jnp.where(iou >= good, 1.0, overlap)


def _corners(box: Float[Array, "*batch 4"]) -> tuple[Float[Array, "*batch 2"], Float[Array, "*batch 2"]]:
    half = jnp.maximum(box[..., 2:], 0.0) / 2
    return box[..., :2] - half, box[..., :2] + half
