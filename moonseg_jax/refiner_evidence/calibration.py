"""Whether the IoU that a refiner predicts of its masks is the IoU they have."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

BINS = 10
"""Bins of predicted IoU, of equal width."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Masks whose predicted IoU lies between `low` and `high`; predictions beyond 0 or 1 count to the outer bins."""

    low: float
    high: float
    n: int
    predicted: float
    """Mean predicted IoU."""
    true: float
    """Mean IoU with the ground truth."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Predicted against true IoU, over masks that were refined."""

    n: int
    bins: tuple[CalibrationBin, ...]
    """Those that hold masks, ascending."""
    expected_error: float | None
    """Expected calibration error (Naeini et al. 2015, with IoU in place of accuracy): the mean of |predicted - true|
    of the bins' means, weighted by their masks. None without masks."""
    mean_error: float | None
    """Mean of predicted less true: above 0 the refiner flatters itself."""
    correlation: float | None
    """Pearson's; None for fewer than two masks, or where one side does not vary."""


def calibration(predicted: Float[np.ndarray, " N"], true: Float[np.ndarray, " N"], bins: int = BINS) -> Calibration:
    """Compares what was predicted with what came true.

    Args:
      predicted: raw outputs of the IoU head, which may leave 0 to 1.
      true: IoU with the ground truth.
      bins: of predicted IoU.

    Raises:
      ValueError: the arrays differ in length.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"predicted is {predicted.shape}, true {true.shape}")
    # The tiny addend puts .3 into the bin that starts at .3, whatever 10 · .3 rounds to.
    number = np.clip(np.floor(predicted * bins + 1e-9), 0, bins - 1).astype(int)
    filled = tuple(
        CalibrationBin(
            low=k / bins, high=(k + 1) / bins, n=int(np.count_nonzero(number == k)),
            predicted=float(predicted[number == k].mean()), true=float(true[number == k].mean()),
        )
        for k in np.unique(number).tolist()
    )  # fmt: skip
    n = len(predicted)
    varies = n > 1 and float(np.ptp(predicted)) > 0 and float(np.ptp(true)) > 0
    return Calibration(
        n=n,
        bins=filled,
        expected_error=sum(one.n * abs(one.predicted - one.true) for one in filled) / n if n else None,
        mean_error=float(np.mean(predicted - true)) if n else None,
        correlation=float(np.corrcoef(predicted, true)[0, 1]) if varies else None,
    )
