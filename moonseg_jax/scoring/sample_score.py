"""The exact counts of one scored sample."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool

from moonseg_jax.metrics import NEAR_BOUNDARY_PX, inner_boundary, relative_radius
from moonseg_jax.scoring.boundary_f import boundary_f, boundary_matches


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleScore:
    """Counts in pixels; every ratio is formed from them on demand."""

    id: str
    status: str
    """`ok`, `missing`, or another word that says how the prediction came about."""
    predicted: int
    true: int
    size: int
    """Pixels of the image."""
    intersection: int
    near_both: int
    near_either: int
    """Intersection and union of the boundaries of `NEAR_BOUNDARY_PX`."""
    relative_both: int
    relative_either: int
    """Intersection and union of the boundaries of 2 % of the diagonal."""
    boundary: tuple[int, int, int, int]
    """See `boundary_matches`."""

    @property
    def union(self) -> int:
        """Pixels in either mask."""
        return self.predicted + self.true - self.intersection

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both masks are empty."""
        return ratio(self.intersection, self.union)

    @property
    def f(self) -> float:
        """DAVIS boundary F."""
        return boundary_f(*self.boundary)


def ratio(part: int, whole: int) -> float:
    """A part of a whole; 1 of nothing."""
    return part / whole if whole else 1.0


def score_sample(
    prediction: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"], *, id: str, status: str = "ok"
) -> SampleScore:
    """Counts of one prediction at the ground truth's resolution.

    Raises:
      ValueError: the masks differ in shape.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction is {prediction.shape}, ground truth {truth.shape}")
    prediction, truth = np.asarray(prediction, bool), np.asarray(truth, bool)
    near, relative = (
        [inner_boundary(mask, radius) for mask in (prediction, truth)]
        for radius in (NEAR_BOUNDARY_PX, relative_radius(*truth.shape))
    )
    return SampleScore(
        id=id, status=status, predicted=_count(prediction), true=_count(truth), size=truth.size,
        intersection=_count(prediction & truth),
        near_both=_count(near[0] & near[1]), near_either=_count(near[0] | near[1]),
        relative_both=_count(relative[0] & relative[1]), relative_either=_count(relative[0] | relative[1]),
        boundary=boundary_matches(prediction, truth),
    )  # fmt: skip


def _count(mask: Bool[np.ndarray, "H W"]) -> int:
    return int(np.count_nonzero(mask))
