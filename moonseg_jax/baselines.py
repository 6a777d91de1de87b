"""What one gets without understanding the phrase or the outline: the three baselines every table shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

Mask = Bool[np.ndarray, "H W"]

FLOOD_TOLERANCE = 60.0
"""RGB distance at which `flood_fill` was strongest on shapes, level 2 (`strongest_tolerance`)."""

FLOOD_MARGIN = 0.25
"""The flood stays inside the outline's box, grown by this share per side: the crop that the refiner sees."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineSample:
    """One phrase with what the baselines need; masks at the size of the image."""

    image: UInt8[np.ndarray, "H W 3"]
    ground_truth: Mask
    others: tuple[Mask, ...]
    """True masks of the other objects of the image; may be empty."""
    coarse: Mask
    """The coarse outline that the flood fill starts from, filled."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baselines:
    """Mean IoU of each baseline over the samples."""

    other_object: float
    """The true mask of a random other object of the image (its expectation); nan if no image has another."""
    any_object: float
    """The true mask of a random object, the right one included: what ignoring the phrase earns."""
    filled_box: float
    """The bounding box of the ground truth, filled."""
    coarse: float
    """The coarse outline itself."""
    flood_fill: float
    """`flood_fill` from the coarse outline."""
    n: int
    """Samples; `other_object` and `any_object` leave out those without another object."""

    @property
    def flood_fill_gain(self) -> float:
        """What the flood fill gains over the coarse outline."""
        return self.flood_fill - self.coarse


def mask_iou(first: Mask, second: Mask) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def filled_box(mask: Mask, margin: float = 0.0) -> Mask:
    """The bounding box of a mask, filled; empty for an empty mask.

    Args:
      mask: at the size of the image.
      margin: growth on each side, as a share of the box's width and height, cut at the image's border.
    """
    box = np.zeros_like(mask)
    if mask.any():
        rows, columns = (_grown(np.flatnonzero(mask.any(axis=axis)), margin) for axis in (1, 0))
        box[rows, columns] = True
    return box


def inscribed_ellipse(mask: Mask) -> Mask:
    """The ellipse in the bounding box of a mask, by pixel centres; empty for an empty mask."""
    ellipse = np.zeros_like(mask)
    if mask.any():
        x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
        across, down = ((2 * np.arange(side) + 1) / side - 1 for side in (width, height))
        ellipse[y : y + height, x : x + width] = down[:, None] ** 2 + across**2 <= 1
    return ellipse


def convex_hull(mask: Mask) -> Mask:
    """The convex hull of the centres of a mask's pixels, filled; empty for an empty mask."""
    hull = np.zeros(mask.shape, np.uint8)
    if mask.any():
        cv2.fillConvexPoly(hull, cv2.convexHull(cv2.findNonZero(mask.view(np.uint8))), 1)
    return hull.astype(bool)


def _grown(occupied: np.ndarray, margin: float) -> slice:
    first, end = int(occupied[0]), int(occupied[-1]) + 1
    growth = round(margin * (end - first))
    return slice(max(first - growth, 0), end + growth)


def flood_fill(image: UInt8[np.ndarray, "H W 3"], coarse: Mask, tolerance: float = FLOOD_TOLERANCE) -> Mask:
    """Grows the colour under a coarse outline.

    Args:
      image: RGB.
      coarse: filled outline; where it is empty the result is empty.
      tolerance: largest Euclidean RGB distance (0..255 per channel) from the median colour under the outline.

    Returns:
      All 4-connected regions of that colour that touch the outline's inside, within its grown box.
    """
    if not coarse.any():
        return np.zeros_like(coarse)
    colours = image.astype(np.float32)
    distance = np.linalg.norm(colours - np.median(colours[coarse], axis=0), axis=-1)
    alike = (distance <= tolerance) & filled_box(coarse, FLOOD_MARGIN)
    _, regions = cv2.connectedComponents(alike.astype(np.uint8), connectivity=4)
    touched = np.unique(regions[coarse])
    return np.isin(regions, touched[touched > 0])


def measure_baselines(samples: Iterable[BaselineSample], tolerance: float = FLOOD_TOLERANCE) -> Baselines:
    """Mean IoU of the baselines.

    Args:
      samples: at least one.
      tolerance: of the flood fill.

    Raises:
      ValueError: for no samples at all.
    """
    other, any_object, box, coarse, flood = [], [], [], [], []
    for sample in samples:
        truth = sample.ground_truth
        if sample.others:
            ious = [mask_iou(mask, truth) for mask in sample.others]
            other.append(sum(ious) / len(ious))
            any_object.append((1 + sum(ious)) / (1 + len(ious)))
        box.append(mask_iou(filled_box(truth), truth))
        coarse.append(mask_iou(sample.coarse, truth))
        flood.append(mask_iou(flood_fill(sample.image, sample.coarse, tolerance), truth))
    if not box:
        raise ValueError("baselines need at least one sample")
    return Baselines(
        other_object=_mean(other),
        any_object=_mean(any_object),
        filled_box=_mean(box),
        coarse=_mean(coarse),
        flood_fill=_mean(flood),
        n=len(box),
    )


def strongest_tolerance(samples: Sequence[BaselineSample], tolerances: Sequence[float]) -> float:
    """The tolerance at which the flood fill reaches its highest mean IoU; an honest baseline is tuned."""
    return max(tolerances, key=lambda tolerance: measure_baselines(samples, tolerance).flood_fill)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
