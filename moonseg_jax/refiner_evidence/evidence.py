"""What a refiner does to one kind of coarse masks, as numbers."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moonseg_jax.baselines import FLOOD_TOLERANCE, BaselineSample, flood_fill, mask_iou, strongest_tolerance
from moonseg_jax.metrics import MaskMetrics
from moonseg_jax.refine import Refined, Refiner
from moonseg_jax.refiner_evaluation import share_worse
from moonseg_jax.refiner_evidence.calibration import Calibration, CalibrationBin, calibration
from moonseg_jax.refiner_evidence.coarse_masks import CoarseMask
from moonseg_jax.refiner_evidence.groups import Group, MaskFigures, grouped, measured
from moonseg_jax.status import REFINED
from moonseg_jax.synthetic_pairs import true_box

FLOOD_TOLERANCES = (10.0, 20.0, 40.0, FLOOD_TOLERANCE, 90.0)
"""The flood fill is given the best of them for the very masks it is judged on: an honest rival is tuned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Held-out figures of one refiner on coarse masks of one source."""

    n: int
    groups: tuple[Group, ...]
    """All masks first; then by object size, then by the coarse mask's IoU."""
    worse: tuple[float, ...]
    """After each iteration: share of masks whose IoU fell by more than `refiner_evaluation.WORSE_BY`."""
    identity_iou: tuple[float, ...]
    """After each iteration: mean IoU that is left where the ground truth itself is refined; empty without targets."""
    calibration: Calibration
    """Of the last iteration's predicted IoU, with the IoU of the mask as it is pasted and cleaned."""
    statuses: Mapping[str, int]
    """How many masks ended in which status, see `moonseg_jax.status`."""
    flood_tolerance: float
    """Of the flood fill in `groups`: the best of `FLOOD_TOLERANCES`."""

    @property
    def whole(self) -> Group:
        """All masks."""
        return self.groups[0]

    def as_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Evidence:
        """Takes back what `as_data` gave, as far as tables need it.

        Raises:
          KeyError: a field is missing.
          TypeError: there are fields that evidence does not have.
        """
        groups = tuple(
            Group(
                name=one["name"], n=one["n"], flood_fill=MaskFigures(**one["flood_fill"]),
                iterations=tuple(MaskFigures(**figures) for figures in one["iterations"]),
            )
            for one in data["groups"]
        )  # fmt: skip
        bins = tuple(CalibrationBin(**one) for one in data["calibration"]["bins"])
        lists = {name: tuple(data[name]) for name in ("worse", "identity_iou")}
        calibrated = Calibration(**{**data["calibration"], "bins": bins})
        return cls(**{**data, **lists, "groups": groups, "calibration": calibrated})


def measure(refiner: Refiner, masks: Sequence[CoarseMask]) -> Evidence:
    """Refines coarse masks and compares what every iteration gives with the ground truth.

    Args:
      refiner: with the head that is judged; its iterations are all kept.
      masks: at least one.

    Raises:
      ValueError: no masks.
      UserError: a batch does not fit the device's memory.
    """
    if not masks:
        raise ValueError("evidence needs at least one coarse mask")
    truths = [one.truth for one in masks]
    refined = refiner.refine_each(
        [one.image for one in masks], [one.box for one in masks], [one.coarse for one in masks]
    )
    after = [[measured(one.mask, truth) for one, truth in zip(results, truths)] for results in refined]
    before = [measured(one.coarse, one.truth) for one in masks]
    tolerance, flooded = _flooded(masks)
    coarse_iou = np.array([one.iou for one in before])
    return Evidence(
        n=len(masks),
        groups=grouped([before, *after], flooded, truths),
        worse=tuple(share_worse(coarse_iou, np.array([one.iou for one in results])) for results in after),
        identity_iou=_identity(refiner, [one for one in masks if one.truth.any()]),
        calibration=_calibration(refined[-1], np.array([one.iou for one in after[-1]])),
        statuses=dict(collections.Counter(one.status for one in refined[-1])),
        flood_tolerance=tolerance,
    )


def _identity(refiner: Refiner, masks: Sequence[CoarseMask]) -> tuple[float, ...]:
    """Mean IoU with the ground truth where that was the coarse mask, in the crop of its own box."""
    if not masks:
        return ()
    truths = [one.truth for one in masks]
    again = refiner.refine_each([one.image for one in masks], [true_box(truth) for truth in truths], truths)
    return tuple(
        float(np.mean([mask_iou(one.mask, truth) for one, truth in zip(results, truths)])) for results in again
    )


def _calibration(results: Sequence[Refined], true_iou: np.ndarray) -> Calibration:
    rows = [i for i, one in enumerate(results) if one.status == REFINED]
    return calibration(np.array([results[i].score for i in rows], np.float64), true_iou[rows])


def _flooded(masks: Sequence[CoarseMask]) -> tuple[float, list[MaskMetrics]]:
    samples = [
        BaselineSample(image=one.image, ground_truth=one.truth, others=(), coarse=one.coarse) for one in masks
    ]  # fmt: skip
    tolerance = strongest_tolerance(samples, FLOOD_TOLERANCES)
    return tolerance, [measured(flood_fill(one.image, one.coarse, tolerance), one.truth) for one in masks]
