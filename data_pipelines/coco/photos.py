"""Annotations → which photos with which phrases and targets; no pixels yet."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco_mask

from data_pipelines.coco.annotations import CocoAnnotations, InstanceEntry, PhotoEntry, polygons_of
from data_pipelines.coco.positional import positional_phrases
from moonseg_jax.errors import UserError

RunLengths = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhrasePlan:
    """One phrase of a photo."""

    phrase: str
    target: RunLengths | None
    """COCO compressed run-length encoding; None for a phrase without target."""
    example_id: int
    """Position among all phrases of the data set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoPlan:
    """A photo with at least one phrase."""

    photo: PhotoEntry
    phrases: tuple[PhrasePlan, ...]


def plan_photos(
    annotations: CocoAnnotations, *, limit: int | None, min_area: float, positional: bool = False
) -> list[PhotoPlan]:
    """Chooses photos and phrases, in the order of the file.

    A category's name is a phrase of a photo if the photo holds the category exactly once, and not as a crowd;
    crowds and instances too small to be a target count as occurrences.

    Args:
      annotations: see `read_annotations`.
      limit: most photos, the first ones that have a phrase; None for all.
      min_area: smallest target, as a share of the photo's area.
      positional: categories that occur several times get phrases of place, see `positional_phrases`.

    Raises:
      UserError: a broken segmentation, or no phrase at all.
    """
    of_photo: dict[int, list[InstanceEntry]] = collections.defaultdict(list)
    for instance in annotations.instances:
        of_photo[instance.image_id].append(instance)
    plans: list[PhotoPlan] = []
    count, refused = 0, collections.Counter[str]()
    for photo in annotations.photos:
        phrases = []
        occurrences = collections.Counter(instance.category_id for instance in of_photo[photo.id])
        placed = _placed(of_photo[photo.id], photo, annotations) if positional else {}
        for instance in of_photo[photo.id]:
            if occurrences[instance.category_id] > 1 and instance.id not in placed:
                refused["of a category that occurs more than once"] += 1
            elif instance.is_crowd:
                refused["crowds"] += 1
            else:
                target = run_lengths(instance, photo, annotations.file)
                if coco_mask.area(target) > max(min_area * photo.height * photo.width, 0):
                    name = placed.get(instance.id, annotations.categories[instance.category_id])
                    phrases.append(PhrasePlan(phrase=name, target=target, example_id=count))
                    count += 1
                else:
                    refused["too small"] += 1
        if phrases:
            plans.append(PhotoPlan(photo=photo, phrases=tuple(phrases)))
        if len(plans) == limit:
            break
    if not plans:
        reasons = ", ".join(f"{number} {reason}" for reason, number in refused.items()) or "no instances"
        raise UserError(
            f"annotations {annotations.file}: no photo holds a category exactly once ({reasons}); "
            "give other annotations or a smaller min_area"
        )
    return plans


def _placed(instances: Sequence[InstanceEntry], photo: PhotoEntry, annotations: CocoAnnotations) -> dict[int, str]:
    """Phrases of place by the id of their instance; of a category with a crowd, where not all are told, none."""
    of_category: dict[int, list[InstanceEntry]] = collections.defaultdict(list)
    for instance in instances:
        of_category[instance.category_id].append(instance)
    found: dict[int, str] = {}
    for category, members in of_category.items():
        if any(member.is_crowd for member in members):
            continue
        masks = [run_lengths(member, photo, annotations.file) for member in members]
        if all(coco_mask.area(mask) for mask in masks):
            phrases = positional_phrases(annotations.categories[category], masks, photo)
            found |= dict(zip((member.id for member in members), phrases or ()))
    return found


def run_lengths(instance: InstanceEntry, photo: PhotoEntry, file: str) -> RunLengths:
    """The mask of an instance as pycocotools' `annToRLE` gives it: polygons are united.

    Raises:
      UserError: neither polygons nor a run-length encoding of the photo's size.
    """
    encoded = encoded_mask(instance.segmentation, photo.height, photo.width)
    if encoded is not None:
        return encoded
    raise UserError(
        f"annotations {file}: the segmentation of annotation {instance.id} is neither a list of polygons with "
        f"at least 3 vertices nor a run-length encoding of {photo.height} x {photo.width} pixels"
    )


def encoded_mask(segmentation: Any, height: int, width: int) -> RunLengths | None:
    """Polygons, united, or a run-length encoding as COCO's compressed one; None where it is neither, of that size."""
    polygons = polygons_of(segmentation)
    if polygons is not None:
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    if isinstance(segmentation, dict) and segmentation.get("size") == [height, width]:
        counts = segmentation.get("counts")
        if isinstance(counts, list) and all(isinstance(run, int) and run >= 0 for run in counts):
            if sum(counts) == height * width:
                return coco_mask.frPyObjects(segmentation, height, width)
        elif isinstance(counts, str):
            if sum(_runs(counts) or ()) == height * width:
                return {"size": segmentation["size"], "counts": counts.encode("ascii")}
    return None


def _runs(counts: str) -> list[int] | None:
    """Runs of a compressed encoding; None for text that is none.

    Five bits per character, lowest first, the sixth says that more follow; from the fourth run on a number is
    the difference to the run before last (`rleFrString` of pycocotools, which trusts its input).
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if shift == 0 and all(run >= 0 for run in runs) else None
