"""Axis 2, the boundary: whether the outline runs where the object's does. All values lie in [0, 1]."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moonseg_jax.metrics import intersection_and_union
from moonseg_jax.metrics import iou as ratio


def boundary_radius(share: float, side: int) -> int:
    """Width of the boundary in pixels: a share of the diagonal of a side x side raster, at least 1.

    As `metrics.relative_radius`, where the share is 2 % (Cheng et al. 2021, Boundary IoU).
    """
    return max(1, round(share * math.hypot(side, side)))


def boundary(mask: Bool[Array, "R C"], radius_px: int) -> Bool[Array, "R C"]:
    """What 3 x 3 erosion, `radius_px` times, takes from a mask; pixels outside count as background."""
    return mask & ~_all_within(mask, radius_px)


def boundary_iou(drawn: Bool[Array, "R C"], truth: Bool[Array, "R C"], radius_px: int) -> Float[Array, ""]:
    """IoU of the inner boundaries (Cheng et al. 2021); empty against empty is 1."""
    return ratio(*intersection_and_union(boundary(drawn, radius_px), boundary(truth, radius_px)))


def least_of_iou_and_boundary(
    iou: Float[Array, "*batch"], at_boundary: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """min(IoU, boundary IoU), as Cheng et al. 2021 judge instances: neither area nor outline makes up for the other."""
    return jnp.minimum(iou, at_boundary)


def boundary_closeness(drawn: Bool[Array, "R C"], truth: Bool[Array, "R C"], reach_px: int) -> Float[Array, ""]:
    """1 less the mean distance between the two boundaries, cut off at a reach.

    With d(p, B) the Chebyshev distance of pixel p to the nearest pixel of B, and P, G the boundaries one pixel wide:
    `1 - (mean over p in P of min(d(p, G), reach) + mean over g in G of min(d(g, P), reach)) / (2 reach)`. A truncated
    symmetric chamfer distance (Barrow et al. 1977). Nothing against nothing is 1, nothing against something 0.
    """
    ours, theirs = boundary(drawn, 1), boundary(truth, 1)
    ours_count, theirs_count = (jnp.sum(line, dtype=jnp.float32) for line in (ours, theirs))
    from_ours = _distance_sum(ours, theirs, reach_px) / jnp.maximum(ours_count, 1.0)
    from_theirs = _distance_sum(theirs, ours, reach_px) / jnp.maximum(theirs_count, 1.0)
    closeness = 1.0 - (from_ours + from_theirs) / (2.0 * reach_px)
    none = (ours_count == 0) | (theirs_count == 0)
    return jnp.where(none, (ours_count == theirs_count).astype(jnp.float32), jnp.maximum(closeness, 0.0))


def _distance_sum(pixels: Bool[Array, "R C"], line: Bool[Array, "R C"], reach_px: int) -> Float[Array, ""]:
    """Sum over pixels of their distance to a line, at most the reach: one for every width that misses it."""

    # A loop, not Python's: XLA would fuse the steps and compute each of them nine times for every later one.
    def widen(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, reached = carry
        return total + jnp.sum(pixels & ~reached, dtype=jnp.float32), _any_within_one(reached)

    return jax.lax.fori_loop(0, reach_px, widen, (jnp.zeros((), jnp.float32), line))[0]


def _any_within_one(mask: Bool[Array, "R C"]) -> Bool[Array, "R C"]:
    for axis in (0, 1):
        length, padded = mask.shape[axis], _padded(mask, 1, axis)
        shifted = [jax.lax.slice_in_dim(padded, start, start + length, axis=axis) for start in range(3)]
        mask = shifted[0] | shifted[1] | shifted[2]
    return mask


def _all_within(mask: Bool[Array, "R C"], radius: int) -> Bool[Array, "R C"]:
    """Whether a window of 2 radius + 1 around each pixel is full. Windows grow by doubling, axis by axis, which on
    CPU takes a third of the time of `reduce_window`."""
    window = 2 * radius + 1
    for axis in (0, 1):
        full, size = _padded(mask, radius, axis), 1
        while size < window:
            shift = min(size, window - size)
            length = full.shape[axis]
            full = jax.lax.slice_in_dim(full, 0, length - shift, axis=axis) & jax.lax.slice_in_dim(
                full, shift, length, axis=axis
            )
            size += shift
        mask = full
    return mask


def _padded(mask: Bool[Array, "R C"], width: int, axis: int) -> Bool[Array, "R C"]:
    return jnp.pad(mask, [(width, width) if one == axis else (0, 0) for one in (0, 1)])
