"""LVIS annotations → which photos with which phrases and targets; no pixels yet."""

from __future__ import annotations

import collections

from pycocotools import mask as coco_mask

from data_pipelines.coco.annotations import InstanceEntry
from data_pipelines.coco.photos import PhotoPlan, PhrasePlan, run_lengths
from data_pipelines.lvis.annotations import LvisAnnotations
from moonseg_jax.errors import UserError


def plan_lvis(
    annotations: LvisAnnotations, *, instances: bool, limit: int | None
) -> tuple[list[PhotoPlan], tuple[str, ...]]:
    """Chooses photos and phrases, in the order of the file.

    A category that a photo does not annotate exhaustively is skipped. The id of an example is its position among
    all examples; with instances, the id of its annotation.

    Args:
      annotations: see `read_lvis`.
      instances: an example per instance, all with the category's phrase; else one per category, their union.
      limit: most photos, the first ones that have a phrase; None for all.

    Returns:
      The photos, and a line for each target without a pixel.

    Raises:
      UserError: a broken segmentation, or no phrase at all.
    """
    coco = annotations.coco
    of_photo: dict[int, dict[int, list[InstanceEntry]]] = collections.defaultdict(dict)
    for instance in coco.instances:
        if instance.category_id not in annotations.not_exhaustive[instance.image_id]:
            of_photo[instance.image_id].setdefault(instance.category_id, []).append(instance)
    plans: list[PhotoPlan] = []
    refused: list[str] = []
    count = 0
    for photo in coco.photos:
        phrases = []
        for category, members in of_photo[photo.id].items():
            masks = [run_lengths(instance, photo, coco.file) for instance in members]
            targets = masks if instances else [coco_mask.merge(masks)]
            for member, target in zip(members, targets):
                if coco_mask.area(target) == 0:
                    refused.append(f"annotations {coco.file}: annotation {member.id} has no pixel in its photo")
                else:
                    number = member.id if instances else count
                    phrases.append(PhrasePlan(phrase=coco.categories[category], target=target, example_id=number))
                    count += 1
        if phrases:
            plans.append(PhotoPlan(photo=photo, phrases=tuple(phrases)))
        if len(plans) == limit:
            break
    if not plans:
        raise UserError(f"annotations {coco.file}: no photo has an exhaustively annotated category")
    return plans, tuple(refused)
