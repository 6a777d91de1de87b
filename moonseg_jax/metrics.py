"""Mask metrics: IoU and boundary IoU of single masks, and their sums and counts over a split.

Definitions: mIoU is the mean of the samples' IoU, cIoU the summed intersections over the summed unions,
precision at X the share of samples with IoU of at least X. A sample is a phrase; empty against empty counts
as 1; a failed prediction is an empty mask and is never dropped.
"""

from __future__ import annotations

import dataclasses
import math

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU from which on a sample counts as found."""

NEAR_BOUNDARY_PX = 2
"""Width in pixels of the boundary that is reported beside the relative one."""

BOUNDARY_SHARE = 0.02
"""Width of the boundary as a share of the image's diagonal (Cheng et al. 2021)."""

MEDIUM_FROM, LARGE_FROM = (side * side / (640 * 480) for side in (32, 96))
"""Areas from which on objects are medium and large: COCO's 32² and 96² pixels, as shares of its usual image, so that
they mean the same at every resolution."""


def intersection_and_union(
    prediction: Bool[Array, "*batch H W"], truth: Bool[Array, "*batch H W"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Pixels in both masks and pixels in either, on device; exact up to 2^24 pixels."""
    both = jnp.sum(prediction & truth, axis=(-2, -1), dtype=jnp.float32)
    either = jnp.sum(prediction | truth, axis=(-2, -1), dtype=jnp.float32)
    return both, either


def iou(intersection: Float[Array, "*batch"], union: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Intersection over union, on device; 1 where both masks are empty."""
    return jnp.where(union > 0, intersection / jnp.maximum(union, 1.0), 1.0)


def by_object_size(truth: Bool[Array, "*batch H W"]) -> dict[str, Bool[Array, "*batch"]]:
    """Which objects are `small`, `medium` and `large`, on device; an empty mask is none of them."""
    area = jnp.mean(truth, axis=(-2, -1), dtype=jnp.float32)
    large = area >= LARGE_FROM
    medium = (area >= MEDIUM_FROM) & ~large
    return {"small": (area > 0) & ~medium & ~large, "medium": medium, "large": large}


def boundary_iou(prediction: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"], radius_px: int) -> float:
    """IoU of the masks' inner boundaries (Cheng et al. 2021, Boundary IoU); 1 if both are empty.

    The boundary of a mask is what 3 x 3 erosion, `radius_px` times, takes away, where pixels outside the
    image count as background.
    """
    window = _window(prediction | truth)
    ours, theirs = (inner_boundary(mask[window], radius_px) for mask in (prediction, truth))
    either = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / either if either else 1.0


def relative_radius(height: int, width: int) -> int:
    """Width of the boundary in pixels: 2 % of the image's diagonal, at least 1."""
    return max(1, round(BOUNDARY_SHARE * math.hypot(height, width)))


def _window(mask: Bool[np.ndarray, "H W"]) -> tuple[slice, slice]:
    """The smallest window that holds a mask: erosion sees the same background around it."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def inner_boundary(mask: Bool[np.ndarray, "H W"], radius_px: int) -> Bool[np.ndarray, "H W"]:
    """What `radius_px` erosions by 3 x 3 take away; pixels outside the image are background."""
    # Eroding d times by 3 x 3 is eroding once by 2d + 1; the one pixel of padding is background, and OpenCV
    # ignores what lies beyond it.
    padded = np.pad(mask.astype(np.uint8), 1)
    eroded = cv2.erode(padded, np.ones((2 * radius_px + 1,) * 2, np.uint8))[1:-1, 1:-1]
    return mask & (eroded == 0)


@dataclasses.dataclass(kw_only=True)
class MaskMetrics:
    """Sums and counts over samples; divided once, in `summary`. Sums of several add up with `merge`."""

    count: int = 0
    iou: float = 0.0
    intersection: int = 0
    union: int = 0
    found: list[int] = dataclasses.field(default_factory=lambda: [0] * len(THRESHOLDS))
    """Samples with at least the IoU of each of `THRESHOLDS`."""
    near_boundary: float = 0.0
    """Sum of boundary IoU at `NEAR_BOUNDARY_PX`."""
    relative_boundary: float = 0.0
    """Sum of boundary IoU at 2 % of the diagonal."""

    def add(self, prediction: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"]) -> float:
        """Adds one sample, both masks at the original resolution, and returns its IoU.

        Raises:
          ValueError: the masks differ in shape.
        """
        if prediction.shape != truth.shape:
            raise ValueError(f"prediction is {prediction.shape}, ground truth {truth.shape}")
        prediction, truth = np.asarray(prediction, bool), np.asarray(truth, bool)
        both, either = int(np.count_nonzero(prediction & truth)), int(np.count_nonzero(prediction | truth))
        sample = both / either if either else 1.0
        self.count += 1
        self.iou += sample
        self.intersection += both
        self.union += either
        self.found = [count + (sample >= least) for count, least in zip(self.found, THRESHOLDS)]
        self.near_boundary += boundary_iou(prediction, truth, NEAR_BOUNDARY_PX)
        self.relative_boundary += boundary_iou(prediction, truth, relative_radius(*truth.shape))
        return sample

    def merge(self, other: MaskMetrics) -> MaskMetrics:
        """Sums and counts of both."""
        return MaskMetrics(
            count=self.count + other.count,
            iou=self.iou + other.iou,
            intersection=self.intersection + other.intersection,
            union=self.union + other.union,
            found=[ours + theirs for ours, theirs in zip(self.found, other.found)],
            near_boundary=self.near_boundary + other.near_boundary,
            relative_boundary=self.relative_boundary + other.relative_boundary,
        )

    def summary(self) -> dict[str, float]:
        """`miou`, `ciou`, `p50` … `p90`, `biou_2px`, `biou_2pct` and the count `n`.

        Raises:
          ValueError: nothing was added.
        """
        if self.count == 0:
            raise ValueError("no sample was added, so there is no mean")
        precision = {f"p{round(100 * least)}": count / self.count for least, count in zip(THRESHOLDS, self.found)}
        return {
            "miou": self.iou / self.count,
            "ciou": self.intersection / self.union if self.union else 1.0,
            **precision,
            "biou_2px": self.near_boundary / self.count,
            "biou_2pct": self.relative_boundary / self.count,
            "n": self.count,
        }
