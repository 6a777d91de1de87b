"""Expressions and annotations → which photos with which phrases and targets, per split; no pixels yet."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from pycocotools import mask as coco_mask

from data_pipelines.coco.annotations import CocoAnnotations, InstanceEntry, PhotoEntry
from data_pipelines.coco.photos import PhotoPlan, PhrasePlan, run_lengths
from data_pipelines.refer.refs import Reference, References
from moonseg_jax.errors import UserError

MAX_CHARACTERS = 1_000
"""Longest phrase; the longest of the published data sets are a fraction of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferPlan:
    """What a data set will hold."""

    splits: dict[str, list[PhotoPlan]]
    refused: tuple[str, ...]
    """One line for every expression that cannot be an example, and why."""


def plan_references(references: References, annotations: CocoAnnotations, *, limit: int | None) -> ReferPlan:
    """Groups expressions by split and photo, in the order of their file; every sentence is an example.

    The id of an example is its position among all sentences of the file, also with a limit.

    Args:
      references: see `read_references`.
      annotations: the instances file beside it.
      limit: most photos of a split, the first ones; None for all.

    Raises:
      UserError: an expression of a photo or an instance that the annotations do not have, an instance of another
        photo, a broken segmentation, or nothing left to build.
    """
    planner = _Planner(references.file, annotations)
    phrases: dict[str, dict[int, list[PhrasePlan]]] = collections.defaultdict(dict)
    refused: list[str] = []
    first_id = 0
    for position, entry in enumerate(references.entries):
        of_photo = phrases[entry.split]
        if entry.image_id in of_photo or limit is None or len(of_photo) < limit:
            planned, wrong = planner.phrases(entry, first_id, f"expressions {references.file}: [{position}]")
            if planned:
                of_photo.setdefault(entry.image_id, []).extend(planned)
            refused.extend(wrong)
        first_id += len(entry.sentences)
    splits = {
        split: [PhotoPlan(photo=planner.photos[number], phrases=tuple(said)) for number, said in of_photo.items()]
        for split, of_photo in phrases.items()
        if of_photo
    }
    if not splits:
        raise UserError(f"expressions {references.file}: none can be an example; the first: {refused[0]}")
    return ReferPlan(splits=splits, refused=tuple(refused))


class _Planner:
    """Looks up photos and masks; a mask is drawn once for all sentences of a target."""

    def __init__(self, file: str, annotations: CocoAnnotations):
        self._file, self._annotations = file, annotations
        self.photos: dict[int, PhotoEntry] = {photo.id: photo for photo in annotations.photos}
        self._instances: dict[int, InstanceEntry] = {instance.id: instance for instance in annotations.instances}

    def phrases(self, entry: Reference, first_id: int, place: str) -> tuple[list[PhrasePlan], list[str]]:
        """The examples of an entry, and a line for each sentence that cannot be one."""
        if entry.image_id not in self.photos:
            raise UserError(f"{place}.image_id: {self._annotations.file} has no image {entry.image_id}")
        target = self._target(entry, place)
        planned, refused = [], []
        for k, sentence in enumerate(entry.sentences):
            phrase = " ".join(sentence.text.split())
            if not phrase:
                refused.append(f"{place}.sentences[{k}]: the phrase is empty")
            elif len(phrase) > MAX_CHARACTERS:
                refused.append(f"{place}.sentences[{k}]: {len(phrase)} characters, at most {MAX_CHARACTERS} are taken")
            elif target is not None and coco_mask.area(target) == 0:
                refused.append(f"{place}.sentences[{k}]: the mask of its target has no pixel in the photo")
            else:
                planned.append(PhrasePlan(phrase=phrase, target=target, example_id=first_id + k))
        return planned, refused

    def _target(self, entry: Reference, place: str) -> dict[str, Any] | None:
        masks = []
        for number in entry.annotation_ids:
            instance = self._instances.get(number)
            if instance is None:
                raise UserError(f"{place}.ann_id: {self._annotations.file} has no annotation {number}")
            if instance.image_id != entry.image_id:
                raise UserError(
                    f"{place}.ann_id: annotation {number} lies in image {instance.image_id}, not {entry.image_id}"
                )
            masks.append(run_lengths(instance, self.photos[entry.image_id], self._annotations.file))
        if not masks:
            return None
        return masks[0] if len(masks) == 1 else coco_mask.merge(masks)
