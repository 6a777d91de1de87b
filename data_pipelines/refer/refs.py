"""Reading the expressions of a REFER or gRefCOCO file: every entry is checked before anything is built from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from typing import Any

from etils import epath

from data_pipelines.refer.plain_pickle import read_plain_pickle
from moonseg_jax.errors import UserError

NO_TARGET = -1
"""The annotation id of an expression that means nothing in the photo (gRefCOCO)."""
SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentence:
    """One expression."""

    id: int
    text: str
    """As the file gives it; may be empty or too long, which is judged when a data set is planned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """A target in a photo, with all expressions that mean it."""

    id: int
    image_id: int
    annotation_ids: tuple[int, ...]
    """The instances that are the target together; none where the expression has no target."""
    split: str
    sentences: tuple[Sentence, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class References:
    """What a file of expressions says."""

    entries: tuple[Reference, ...]
    file: str
    digest: str
    """SHA-256 of the file, the first 16 hexadecimal digits."""


def read_references(file: str | os.PathLike[str]) -> References:
    """Reads `refs(unc).p` of REFER (a pickle, one annotation each) or `grefs(unc).json` of gRefCOCO (lists of them).

    Raises:
      UserError: a file that cannot be read, is no list of expressions, or has an entry that is not what the format
        says; names entry and field.
    """
    name = os.fspath(file)
    found, content = _read_json(name) if name.endswith(".json") else read_plain_pickle(name)
    if not isinstance(found, list):
        raise UserError(f"expressions {name}: holds a {type(found).__name__}; a REFER file is a list of expressions")
    if not found:
        raise UserError(f"expressions {name}: the list is empty")
    entries = tuple(_reference(fields, f"expressions {name}: [{k}]") for k, fields in enumerate(found))
    _refuse_duplicates(entries, name)
    return References(entries=entries, file=name, digest=hashlib.sha256(content).hexdigest()[:16])


def _read_json(file: str) -> tuple[Any, bytes]:
    try:
        content = epath.Path(file).read_bytes()
        return json.loads(content), content
    except OSError as error:
        raise UserError(f"expressions {file}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"expressions {file}: not a JSON file ({error}); give grefs(unc).json") from error


def _take(fields: Any, name: str, kind: type, place: str) -> Any:
    """A field of the wanted type."""
    if not isinstance(fields, dict):
        raise UserError(f"{place}: expected a dictionary, found {fields!r:.60}")
    if name not in fields:
        raise UserError(f"{place}.{name}: missing; REFER files have it")
    value = fields[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{place}.{name}: expected {kind.__name__}, found {value!r:.60}")
    return value


def _reference(fields: Any, place: str) -> Reference:
    split = _take(fields, "split", str, place)
    if not SPLIT_NAME.fullmatch(split):
        raise UserError(f"{place}.split: {split!r:.60} is no name of a split")
    sentences = _take(fields, "sentences", list, place)
    if not sentences:
        raise UserError(f"{place}.sentences: the list is empty; every entry has at least one expression")
    return Reference(
        id=_take(fields, "ref_id", int, place), image_id=_take(fields, "image_id", int, place),
        annotation_ids=_annotation_ids(fields, place), split=split,
        sentences=tuple(
            Sentence(id=_take(said, "sent_id", int, there), text=_take(said, "sent", str, there))
            for said, there in ((said, f"{place}.sentences[{k}]") for k, said in enumerate(sentences))
        ),
    )  # fmt: skip


def _annotation_ids(fields: dict[str, Any], place: str) -> tuple[int, ...]:
    """The target's instances; a lone -1 says that there is none."""
    if not isinstance(fields.get("ann_id"), list):
        found = [_take(fields, "ann_id", int, place)]
    else:
        found = fields["ann_id"]
    if not found or not all(isinstance(number, int) and not isinstance(number, bool) for number in found):
        raise UserError(f"{place}.ann_id: expected the ids of instances or [-1], found {found!r:.60}")
    if NO_TARGET in found:
        if len(found) > 1:
            raise UserError(f"{place}.ann_id: {found!r:.60} says both that there is a target and that there is none")
        return ()
    return tuple(dict.fromkeys(found))


def _refuse_duplicates(entries: tuple[Reference, ...], file: str) -> None:
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        if entry.id in seen:
            raise UserError(f"expressions {file}: [{position}].ref_id: {entry.id} occurs twice; ids are unique")
        seen.add(entry.id)
