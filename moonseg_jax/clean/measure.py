"""What cleaning does where the truth is known: polygon annotations of embedded objects, some of them wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.baselines import mask_iou
from moonseg_jax.clean.agreement import Measurement
from moonseg_jax.clean.ensemble import Ensemble
from moonseg_jax.clean.faults import FAULTS, LARGEST_IOU, AnnotatedObject
from moonseg_jax.clean.policy_answers import PolicyAnswers
from moonseg_jax.clean.rule import Rule, fault_of
from moonseg_jax.metrics import NEAR_BOUNDARY_PX, boundary_iou
from moonseg_jax.progress import Progress

OBJECTS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class JudgedObject:
    """One object: what the ensemble says of it, and how far both masks are from the truth."""

    found: Measurement
    fault: str | None
    """What is wrong with the annotation, one of `faults.FAULTS`; None for the right object."""
    annotated_iou: float
    annotated_boundary: float
    """Boundary IoU at 2 px."""
    drawn_iou: float
    """Of the consensus."""
    drawn_boundary: float

    @property
    def is_wrong_mask(self) -> bool:
        """Whether the consensus itself overlaps the truth by less than a wrong annotation may."""
        return self.drawn_iou < LARGEST_IOU


@dataclasses.dataclass(frozen=True, kw_only=True)
class DroppingFigures:
    """Dropping as a search for wrong ones."""

    wrong: int
    dropped: int
    precision: float | None
    """Share of the dropped that is wrong; None where nothing is dropped."""
    recall: float | None
    """Share of the wrong that is dropped; None where nothing is wrong."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleaningFigures:
    """What one rule does to N objects; means over objects."""

    objects: int
    kept: int
    annotated_miou: float
    annotated_boundary: float
    """Annotations of all objects against the truth: mIoU, and boundary IoU at 2 px."""
    before_miou: float | None
    before_boundary: float | None
    """The same of the annotations of kept objects; None where none is kept."""
    kept_miou: float | None
    kept_boundary: float | None
    """The same of the kept masks."""
    gain_miou: tuple[float, float] | None
    gain_boundary: tuple[float, float] | None
    """What kept masks gain over their own annotations, and the standard error of that mean; None for fewer than two."""
    improved: float | None
    """Share of kept masks whose IoU with the truth is at least that of their annotation."""
    wrong_annotations: DroppingFigures
    """Wrong is an annotation that was made wrong."""
    wrong_masks: DroppingFigures
    """Wrong is a consensus with an IoU below `faults.LARGEST_IOU`."""
    recall_by_fault: dict[str, float | None]
    """Share of each kind of wrong annotation that is dropped."""


def judge_objects(
    ensemble: Ensemble, answers: PolicyAnswers | None, objects: Sequence[AnnotatedObject]
) -> list[JudgedObject]:
    """Measures annotated objects and compares with the truth.

    Args:
      ensemble: draws them again.
      answers: a policy to ask for the phrases; None leaves that out.
      objects: see `annotated_objects`.

    Raises:
      UserError: a batch does not fit the device's memory.
    """
    judged: list[JudgedObject] = []
    with Progress("clean: objects", len(objects)) as progress:
        for start in range(0, len(objects), OBJECTS_AT_ONCE):
            part = objects[start : start + OBJECTS_AT_ONCE]
            instances = [one.instance for one in part]
            measured = ensemble.measure(instances)
            if answers is not None:
                measured = answers.compare(instances, measured)
            judged += [_judged(one, found) for one, found in zip(part, measured, strict=True)]
            progress.update(len(judged))
    return judged


def _judged(one: AnnotatedObject, found: Measurement) -> JudgedObject:
    annotation = one.instance.annotation
    return JudgedObject(
        found=found, fault=one.fault, annotated_iou=mask_iou(annotation, one.truth),
        annotated_boundary=boundary_iou(annotation, one.truth, NEAR_BOUNDARY_PX),
        drawn_iou=mask_iou(found.consensus, one.truth),
        drawn_boundary=boundary_iou(found.consensus, one.truth, NEAR_BOUNDARY_PX),
    )  # fmt: skip


def figures_of(judged: Sequence[JudgedObject], rule: Rule) -> CleaningFigures:
    """What the rule does.

    Args:
      judged: at least one object.
      rule: thresholds.
    """
    kept = np.array([fault_of(one.found, rule) is None for one in judged])
    faults = np.array([one.fault or "" for one in judged])
    rows = np.array([(one.annotated_iou, one.annotated_boundary, one.drawn_iou, one.drawn_boundary) for one in judged])
    before: Any = rows[kept].mean(axis=0).tolist() if kept.any() else [None] * 4
    return CleaningFigures(
        objects=len(judged), kept=int(kept.sum()),
        annotated_miou=float(rows[:, 0].mean()), annotated_boundary=float(rows[:, 1].mean()),
        before_miou=before[0], before_boundary=before[1], kept_miou=before[2], kept_boundary=before[3],
        gain_miou=_gain(rows[kept, 2] - rows[kept, 0]),
        gain_boundary=_gain(rows[kept, 3] - rows[kept, 1]),
        improved=float(np.mean(rows[kept, 2] >= rows[kept, 0])) if kept.any() else None,
        wrong_annotations=dropping(~kept, faults != ""),
        wrong_masks=dropping(~kept, np.array([one.is_wrong_mask for one in judged])),
        recall_by_fault={kind: dropping(~kept, faults == kind).recall for kind in FAULTS},
    )  # fmt: skip


def _gain(differences: Float[np.ndarray, " N"]) -> tuple[float, float] | None:
    """Mean and its standard error."""
    if len(differences) < 2:
        return None
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))


def dropping(dropped: Bool[np.ndarray, " N"], wrong: Bool[np.ndarray, " N"]) -> DroppingFigures:
    """Precision and recall of dropping what is wrong."""
    both = int(np.count_nonzero(dropped & wrong))
    all_dropped, all_wrong = int(np.count_nonzero(dropped)), int(np.count_nonzero(wrong))
    return DroppingFigures(
        wrong=all_wrong, dropped=all_dropped, precision=both / all_dropped if all_dropped else None,
        recall=both / all_wrong if all_wrong else None,
    )  # fmt: skip
