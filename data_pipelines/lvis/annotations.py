"""Reading LVIS annotations, v0.5 (`file_name`) and v1 (`coco_url`), into the tables of COCO."""

from __future__ import annotations

import dataclasses
import os

from data_pipelines.coco.annotations import CocoAnnotations, InstanceEntry, PhotoEntry
from data_pipelines.coco.tables import Entry, entries, read_tables, unique
from moonseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LvisAnnotations:
    """What an LVIS file says."""

    coco: CocoAnnotations
    """Photos, instances, and categories by their phrases."""
    not_exhaustive: dict[int, frozenset[int]]
    """Image id: categories of which the photo may hold more than is annotated."""


def read_lvis(file: str | os.PathLike[str]) -> LvisAnnotations:
    """Reads an LVIS file.

    Raises:
      UserError: no such file, not JSON, or an entry that is not what LVIS says; names entry and field.
    """
    tables, digest = read_tables(file)
    categories = {entry.take("id", int): _phrase(entry) for entry in unique(entries(tables, "categories", file))}
    photos, not_exhaustive = [], {}
    for entry in unique(entries(tables, "images", file)):
        photo = _photo(entry)
        photos.append(photo)
        listed = entry.take("not_exhaustive_category_ids", list)
        if unknown := [number for number in listed if number not in categories]:
            raise UserError(f"{entry.place}.not_exhaustive_category_ids: there is no category {unknown[0]!r:.60}")
        not_exhaustive[photo.id] = frozenset(listed)
    instances = []
    for entry in unique(entries(tables, "annotations", file)):
        instance = _instance(entry)
        if instance.image_id not in not_exhaustive:
            raise UserError(f"{entry.place}.image_id: there is no image {instance.image_id} under 'images'")
        if instance.category_id not in categories:
            raise UserError(f"{entry.place}.category_id: there is no category {instance.category_id}")
        instances.append(instance)
    coco = CocoAnnotations(
        photos=tuple(photos), instances=tuple(instances), categories=categories, file=str(file), digest=digest
    )
    return LvisAnnotations(coco=coco, not_exhaustive=not_exhaustive)


def _phrase(entry: Entry) -> str:
    """The first synonym in words: `alarm_clock` is "alarm clock"."""
    synonyms = entry.take("synonyms", list)
    if not synonyms or not isinstance(synonyms[0], str) or not synonyms[0].strip("_ "):
        raise UserError(f"{entry.place}.synonyms: expected names, found {synonyms!r:.60}")
    return " ".join(synonyms[0].replace("_", " ").split())


def _photo(entry: Entry) -> PhotoEntry:
    """The photo's name is `file_name`, or the end of `coco_url`."""
    name = entry.take("file_name", str) if "file_name" in entry.fields else entry.take("coco_url", str)
    return PhotoEntry(
        id=entry.take("id", int), file_name=name.rpartition("/")[2], height=entry.take("height", int),
        width=entry.take("width", int),
    )  # fmt: skip


def _instance(entry: Entry) -> InstanceEntry:
    if "segmentation" not in entry.fields:
        raise UserError(f"{entry.place}.segmentation: missing; LVIS files have it")
    return InstanceEntry(
        id=entry.take("id", int), image_id=entry.take("image_id", int), category_id=entry.take("category_id", int),
        is_crowd=False, segmentation=entry.fields["segmentation"],
    )  # fmt: skip
