"""A file of predicted masks, JSON lines: found by key, decoded one at a time."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from data_pipelines.coco.photos import encoded_mask
from moonseg_jax.errors import UserError
from moonseg_jax.mask_scoring.keys import Key, key_of
from moonseg_jax.paths.mask_image import read_mask

KINDS = ("rle", "polygon", "png")
DATA_URI = "data:image/png;base64,"


class Predictions:
    """Where in a file every sample's mask is; masks are read when they are asked for."""

    def __init__(self, file: Path):
        """Reads the file once, line by line.

        Raises:
          UserError: no such file, a line that is no object or names no sample, a sample named twice.
        """
        self._file = file
        self._lines: dict[Key, tuple[int, int]] = {}
        for number, start, line in _lines(file):
            key = key_of(_object(line, self._place(number)), self._place(number))
            if key in self._lines:
                first = self._lines[key][0]
                raise UserError(f"{self._place(number)}: {_spelt(key)} was answered in line {first} already")
            self._lines[key] = (number, start)
        self._open = open(file, "rb")

    def close(self) -> None:
        """Closes the file."""
        self._open.close()

    def __len__(self) -> int:
        """Number of lines that answer something."""
        return len(self._lines)

    def refuse_unknown(self, known: set[Key]) -> None:
        """Checks that every line answers a sample that there is.

        Raises:
          UserError: names the first that does not, and how many do not.
        """
        unknown = [(number, key) for key, (number, _) in self._lines.items() if key not in known]
        if unknown:
            number, key = min(unknown)
            more = f", nor do {len(unknown) - 1} more lines" if len(unknown) > 1 else ""
            raise UserError(
                f"{self._place(number)}: {_spelt(key)} does not occur in the annotations{more}; are these of the same "
                "data set and split?"
            )

    def mask(self, keys: tuple[Key, ...], height: int, width: int) -> Bool[np.ndarray, "H W"] | None:
        """The mask under the first of these keys that is answered; None where none is.

        Raises:
          UserError: what the line gives is no mask of that size.
        """
        found = next((self._lines[key] for key in keys if key in self._lines), None)
        if found is None:
            return None
        number, start = found
        self._open.seek(start)
        return self._decoded(_object(self._open.readline(), self._place(number)), self._place(number), height, width)

    def _decoded(self, line: dict[str, Any], place: str, height: int, width: int) -> Bool[np.ndarray, "H W"]:
        given = [kind for kind in KINDS if kind in line]
        if len(given) != 1:
            raise UserError(f"{place}: expected one of {', '.join(KINDS)}, found {' and '.join(given) or 'none'}")
        kind, value = given[0], line[given[0]]
        if kind == "png":
            mask = self._png(value, f"{place}.png")
            if mask.shape != (height, width):
                raise UserError(f"{place}.png: has {_size(*mask.shape)} pixels, the photo {_size(height, width)} (HxW)")
            return mask
        is_right_kind = isinstance(value, dict if kind == "rle" else list)
        if kind == "polygon" and value == []:
            return np.zeros((height, width), bool)
        encoded = encoded_mask(value, height, width) if is_right_kind else None
        if encoded is None:
            remedy = {
                "rle": f"no run-length encoding {{size, counts}} of {_size(height, width)} pixels (HxW), the photo's",
                "polygon": "no list of polygons [[x0, y0, x1, y1, …], …] with at least 3 vertices each",
            }[kind]
            raise UserError(f"{place}.{kind}: {remedy}; found {value!r:.60}")
        return coco_mask.decode(encoded) > 0

    def _png(self, value: Any, place: str) -> Bool[np.ndarray, "H W"]:
        if not isinstance(value, str):
            raise UserError(f"{place}: expected the name of a file or {DATA_URI}…, found {value!r:.60}")
        try:
            if not value.startswith("data:"):
                return read_mask(self._file.parent / value)[0]
            if not value.startswith(DATA_URI):
                raise UserError(f"only {DATA_URI}… is read, found {value[:40]!r}")
            return read_mask(base64.b64decode(value.removeprefix(DATA_URI), validate=True))[0]
        except (UserError, binascii.Error) as error:
            raise UserError(f"{place}: {error}") from error

    def _place(self, number: int) -> str:
        return f"predictions {self._file}: line {number}"


def _lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, first byte and text of every line that is not blank."""
    try:
        with open(file, "rb") as stream:
            start = 0
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, start, line
                start += len(line)
    except OSError as error:
        raise UserError(f"predictions {file}: cannot be read ({error.strerror or error})") from error


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({error}); give one object a line") from error
    if not isinstance(found, dict):
        raise UserError(f"{place}: expected an object, found {found!r:.60}")
    return found


def _spelt(key: Key) -> str:
    kind, *values = key
    return {
        "id": "id {0}", "said": "ann_id {0} with sentence {1!r}", "pair": "image_id {0} with category_id {1}",
    }[kind].format(*values)  # fmt: skip


def _size(height: int, width: int) -> str:
    return f"{height}x{width}"
