"""What the members of an ensemble say together: a mask by majority, how far they agree, how far they moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.baselines import mask_iou
from moonseg_jax.refine import Refined
from moonseg_jax.status import REFINED


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """One instance as the ensemble sees it."""

    consensus: Bool[np.ndarray, "H W"]
    """Pixels of more than half of the members."""
    agreement: float
    """Mean IoU over pairs of members."""
    least_agreement: float
    """IoU of the two members that differ most."""
    stay: float
    """IoU of consensus and annotation, the holes of both filled: polygons cannot have any."""
    score: float | None
    """Mean IoU that the members predict of themselves; None where none was refined."""
    unrefined: tuple[str, ...]
    """Statuses of the members that could not refine, see `moonseg_jax.status`."""
    phrase_iou: float | None = None
    """IoU of consensus and what a policy draws for the phrase, the mean over phrases; None where it was not asked."""


def measure_members(annotation: Bool[np.ndarray, "H W"], members: Sequence[Refined]) -> Measurement:
    """Puts the members' masks together.

    A member that could not refine has no vote of its own: it is named in `unrefined`, and its start is its mask.

    Args:
      annotation: what all of them started from.
      members: at least two.

    Raises:
      ValueError: fewer than two members, which cannot agree.
    """
    masks = np.stack([member.mask for member in members])
    ious = pairwise_iou(masks)
    voted = majority(masks)
    scores = [member.score for member in members if member.status == REFINED]
    return Measurement(
        consensus=voted,
        agreement=float(ious.mean()),
        least_agreement=float(ious.min()),
        stay=mask_iou(without_holes(voted), without_holes(annotation)),
        score=float(np.mean(scores)) if scores else None,
        unrefined=tuple(member.status for member in members if member.status != REFINED),
    )


def majority(masks: Bool[np.ndarray, "M H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels that lie in more than half of the masks; a tie is background."""
    return 2 * masks.sum(axis=0, dtype=np.int32) > len(masks)


def without_holes(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The mask with everything that its parts enclose."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED).astype(bool)


def pairwise_iou(masks: Bool[np.ndarray, "M H W"]) -> Float[np.ndarray, " M*(M-1)/2"]:
    """IoU of every pair of masks; 1 for two empty ones.

    Raises:
      ValueError: fewer than two masks.
    """
    if masks.ndim != 3 or len(masks) < 2:
        raise ValueError(f"masks of shape {masks.shape}: agreement needs at least two, as [M, H, W]")
    flat = masks.reshape(len(masks), -1)
    flat = flat[:, flat.any(axis=0)].astype(np.float32)  # Counts are exact in float32 up to 2^24 pixels.
    both, area = flat @ flat.T, flat.sum(axis=1)
    first, second = np.triu_indices(len(masks), 1)
    inside = both[first, second].astype(np.float64)
    union = area[first].astype(np.float64) + area[second] - inside
    return np.where(union > 0, inside / np.maximum(union, 1.0), 1.0)
