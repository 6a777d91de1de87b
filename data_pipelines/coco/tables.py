"""The lists of a JSON file in COCO's layout: their entries, and where each stands for an error."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from etils import epath

from moonseg_jax.errors import UserError


def read_tables(file: str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    """Reads a JSON object of lists.

    Returns:
      The lists, and the SHA-256 of the file, its first 16 hexadecimal digits.

    Raises:
      UserError: no such file, not JSON, or no object.
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
    return tables, hashlib.sha256(content).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Entry:
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


def entries(tables: dict[str, Any], name: str, file: str | os.PathLike[str]) -> Iterator[Entry]:
    """The objects of a list, one by one.

    Raises:
      UserError: no such list, or something else in it.
    """
    table = tables.get(name)
    if not isinstance(table, list):
        raise UserError(f"annotations {file}: the list {name!r} is missing; give a COCO instances file")
    for position, fields in enumerate(table):
        place = f"annotations {file}: {name}[{position}]"
        if not isinstance(fields, dict):
            raise UserError(f"{place}: expected an object, found {fields!r:.60}")
        yield Entry(fields, place)


def unique(found: Iterator[Entry]) -> Iterator[Entry]:
    """Entries as they come; refuses an id that occurs twice in a list."""
    seen: set[int] = set()
    for entry in found:
        number = entry.take("id", int)
        if number in seen:
            raise UserError(f"{entry.place}.id: {number} occurs twice; ids are unique in a COCO instances file")
        seen.add(number)
        yield entry
