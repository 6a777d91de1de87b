"""Reading a COCO instances file: every entry is checked before anything is built from it."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from data_pipelines.coco.tables import Entry, entries, read_tables, unique
from moonseg_jax.errors import UserError

POLYGON_NUMBERS = 6
"""A polygon has at least three vertices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoEntry:
    """An entry of `images`."""

    id: int
    file_name: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstanceEntry:
    """An entry of `annotations`."""

    id: int
    image_id: int
    category_id: int
    is_crowd: bool
    segmentation: Any
    """Polygons [[x0, y0, x1, y1, …], …] or a run-length encoding {size, counts}; checked when it is used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CocoAnnotations:
    """What an instances file says."""

    photos: tuple[PhotoEntry, ...]
    instances: tuple[InstanceEntry, ...]
    categories: dict[int, str]
    file: str
    digest: str
    """SHA-256 of the file, the first 16 hexadecimal digits."""


def read_annotations(file: str | os.PathLike[str]) -> CocoAnnotations:
    """Reads an instances file.

    Raises:
      UserError: no such file, not JSON, or an entry that is not what COCO says; names entry and field.
    """
    tables, digest = read_tables(file)
    photos = tuple(_photo(entry) for entry in unique(entries(tables, "images", file)))
    categories = {
        entry.take("id", int): entry.take("name", str) for entry in unique(entries(tables, "categories", file))
    }
    instances = []
    known = {photo.id for photo in photos}
    for entry in unique(entries(tables, "annotations", file)):
        instance = _instance(entry)
        if instance.image_id not in known:
            raise UserError(f"{entry.place}.image_id: there is no image {instance.image_id} under 'images'")
        if instance.category_id not in categories:
            raise UserError(f"{entry.place}.category_id: there is no category {instance.category_id}")
        instances.append(instance)
    return CocoAnnotations(
        photos=photos, instances=tuple(instances), categories=categories, file=str(file),
        digest=digest,
    )  # fmt: skip


def _photo(entry: Entry) -> PhotoEntry:
    return PhotoEntry(
        id=entry.take("id", int), file_name=entry.take("file_name", str),
        height=entry.take("height", int), width=entry.take("width", int),
    )  # fmt: skip


def _instance(entry: Entry) -> InstanceEntry:
    if "segmentation" not in entry.fields:
        raise UserError(f"{entry.place}.segmentation: missing; a COCO instances file has it")
    return InstanceEntry(
        id=entry.take("id", int), image_id=entry.take("image_id", int),
        category_id=entry.take("category_id", int), is_crowd=bool(entry.fields.get("iscrowd", 0)),
        segmentation=entry.fields["segmentation"],
    )  # fmt: skip


def polygons_of(segmentation: Any) -> list[list[float]] | None:
    """The polygons of a segmentation, or None if it has none that can be drawn."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < POLYGON_NUMBERS or len(polygon) % 2:
            return None
        if not all(isinstance(number, int | float) for number in polygon):
            return None
    return segmentation
