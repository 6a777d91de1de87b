"""Boundary F of two masks (Perazzi et al. 2016, DAVIS), as counts."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Bool

TOLERANCE_SHARE = 0.008
"""How far boundaries may lie apart, as a share of the image's diagonal."""


def tolerance_px(height: int, width: int) -> int:
    """Distance in pixels up to which boundary pixels match: 0.8 % of the diagonal, rounded up."""
    return math.ceil(TOLERANCE_SHARE * math.hypot(height, width))


def thin_boundary(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels that differ from their right, lower or lower right neighbour; the image's edge is no boundary."""
    extended = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask ^ extended[:-1, 1:]) | (mask ^ extended[1:, :-1]) | (mask ^ extended[1:, 1:])


def boundary_matches(prediction: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int]:
    """Boundary pixels of the prediction that match and all of them, then the same of the ground truth."""
    radius = tolerance_px(*truth.shape)
    steps = np.arange(-radius, radius + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)
    ours, theirs = thin_boundary(prediction), thin_boundary(truth)
    near_ours, near_theirs = (cv2.dilate(boundary.astype(np.uint8), disk) > 0 for boundary in (ours, theirs))
    counts = (ours & near_theirs, ours, theirs & near_ours, theirs)
    matched, drawn, recalled, true = (int(np.count_nonzero(pixels)) for pixels in counts)
    return matched, drawn, recalled, true


def boundary_f(matched: int, drawn: int, recalled: int, true: int) -> float:
    """Harmonic mean of precision and recall; 1 where neither mask has a boundary, 0 where only one has."""
    if drawn == 0 or true == 0:
        return float(drawn == true)
    precision, recall = matched / drawn, recalled / true
    return 2 * precision * recall / (precision + recall) if matched and recalled else 0.0
