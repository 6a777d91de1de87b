"""One answer against its ground truth: the record that goes into the log."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from moonseg_jax.baselines import convex_hull, filled_box, flood_fill, inscribed_ellipse
from moonseg_jax.batch import true_mask
from moonseg_jax.evaluation.answers import Answer
from moonseg_jax.evaluation.rows import Place
from moonseg_jax.scoring.sample_score import SampleScore, score_sample
from moonseg_jax.types import Example, Scene

Mask = Bool[np.ndarray, "H W"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """Pixels in both of two masks, and in either."""

    intersection: int
    union: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trivial:
    """Predictions that need no understanding, against a ground truth that is not empty."""

    filled_box: Overlap
    """The ground truth's box, filled."""
    ellipse: Overlap
    """The ellipse in that box."""
    hull: Overlap
    """The ground truth's convex hull."""
    flood_fill: Overlap | None
    """The colour under the coarse outline; None where it is not asked for."""
    other_object: float | None
    """Mean IoU of the other objects of the image, see `Baselines`; None where there is no other."""
    any_object: float | None
    """The same with the right object among them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What the log keeps of one sample."""

    place: Place
    image_id: int
    phrase: str
    box: tuple[float | None, ...]
    """cx, cy, w, h as decoded, in units of the image; None for a number that is not finite."""
    path: str
    """SVG path text of the policy's outline, in units of the box."""
    rle: dict[str, Any]
    """The final mask, COCO run-length encoding."""
    coarse: SampleScore
    refined: SampleScore | None
    """None where refinement is not asked for."""
    sampled: Overlap | None
    trivial: Trivial | None
    """None for a phrase without target."""

    @property
    def final(self) -> SampleScore:
        """Of the mask in `rle`."""
        return self.refined or self.coarse


def judge_answer(answer: Answer, *, is_refined: bool, with_flood_fill: bool) -> Record:
    """Scores one answer.

    Args:
      answer: what was drawn.
      is_refined: whether refinement was asked for.
      with_flood_fill: whether to measure that baseline.
    """
    example = answer.drawn.example
    truth = true_mask(example)
    name, status = str(example.example_id), answer.final.status
    return Record(
        place=answer.place, image_id=example.image_id, phrase=example.phrase,
        box=tuple(float(side) if math.isfinite(side) else None for side in answer.drawn.box),
        path=answer.drawn.path(), rle=_encoded(answer.final.mask),
        coarse=score_sample(answer.coarse, truth, id=name, status=status),
        refined=score_sample(answer.final.mask, truth, id=name, status=status) if is_refined else None,
        sampled=None if answer.sampled is None else overlap(answer.sampled.mask(), truth),
        trivial=_trivial(answer, truth, with_flood_fill) if truth.any() else None,
    )  # fmt: skip


def overlap(prediction: Mask, truth: Mask) -> Overlap:
    """Counts of two masks of one shape."""
    return Overlap(
        intersection=int(np.count_nonzero(prediction & truth)), union=int(np.count_nonzero(prediction | truth))
    )


def _trivial(answer: Answer, truth: Mask, with_flood_fill: bool) -> Trivial:
    example = answer.drawn.example
    ious = _ious_of_other_objects(answer.scene, example)
    return Trivial(
        filled_box=overlap(filled_box(truth), truth), ellipse=overlap(inscribed_ellipse(truth), truth),
        hull=overlap(convex_hull(truth), truth),
        flood_fill=overlap(flood_fill(example.image, answer.coarse), truth) if with_flood_fill else None,
        other_object=sum(ious) / len(ious) if ious else None,
        any_object=(1 + sum(ious)) / (1 + len(ious)) if ious else None,
    )  # fmt: skip


def _ious_of_other_objects(scene: Scene, example: Example) -> list[float]:
    """IoU with each other object that a phrase of the scene names."""
    assert example.target is not None, "only phrases with a target have trivial answers"
    own = example.target["counts"]
    targets = (one.target for one in scene.examples if one.target is not None)
    others = {target["counts"]: target for target in targets if target["counts"] != own}
    if not others:
        return []
    return coco_mask.iou(list(others.values()), [example.target], [0])[:, 0].tolist()


def _encoded(mask: Mask) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
