"""Reading a COCO instances file: every entry is checked before anything is built from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from etils import epath

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
    path = epath.Path(file)
    try:
        content = path.read_bytes()
        tables = json.loads(content)
    except OSError as error:
        raise UserError(f"annotations {file}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"annotations {file}: not a JSON file ({error}); give a COCO instances file") from error
    if not isinstance(tables, dict):
        raise UserError(f"annotations {file}: holds a {type(tables).__name__}; a COCO file is an object with lists")
    photos = tuple(_photo(entry) for entry in _entries(tables, "images", file))
    categories = {entry.take("id", int): entry.take("name", str) for entry in _entries(tables, "categories", file)}
    instances = []
    known = {photo.id for photo in photos}
    for entry in _entries(tables, "annotations", file):
        instance = _instance(entry)
        if instance.image_id not in known:
            raise UserError(f"{entry.place}.image_id: there is no image {instance.image_id} under 'images'")
        if instance.category_id not in categories:
            raise UserError(f"{entry.place}.category_id: there is no category {instance.category_id}")
        instances.append(instance)
    return CocoAnnotations(
        photos=photos, instances=tuple(instances), categories=categories, file=str(file),
        digest=hashlib.sha256(content).hexdigest()[:16],
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One object of a list, and where it stands."""

    fields: dict[str, Any]
    place: str

    def take(self, name: str, kind: type) -> Any:
        """A field of the wanted type."""
        if name not in self.fields:
            raise UserError(f"{self.place}.{name}: missing; a COCO instances file has it")
        value = self.fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{self.place}.{name}: expected {kind.__name__}, found {value!r:.60}")
        return value


def _entries(tables: dict[str, Any], name: str, file: str | os.PathLike[str]) -> Iterator[_Entry]:
    table = tables.get(name)
    if not isinstance(table, list):
        raise UserError(f"annotations {file}: the list {name!r} is missing; give a COCO instances file")
    for position, fields in enumerate(table):
        place = f"annotations {file}: {name}[{position}]"
        if not isinstance(fields, dict):
            raise UserError(f"{place}: expected an object, found {fields!r:.60}")
        yield _Entry(fields, place)


def _photo(entry: _Entry) -> PhotoEntry:
    return PhotoEntry(
        id=entry.take("id", int), file_name=entry.take("file_name", str),
        height=entry.take("height", int), width=entry.take("width", int),
    )  # fmt: skip


def _instance(entry: _Entry) -> InstanceEntry:
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
