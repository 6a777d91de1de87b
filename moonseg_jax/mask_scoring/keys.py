"""What a line of predictions may call a sample by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moonseg_jax.errors import UserError

Key = tuple[str, ...]
"""A kind and its values as text, such as ("id", "17")."""


def id_key(number: int | str) -> Key:
    """A sample by its id."""
    return ("id", str(number))


def said_key(annotations: tuple[int, ...], image_id: int, sentence: str) -> Key:
    """A sample by its target's annotations and its sentence; by its image where it has no target."""
    target = ",".join(str(number) for number in sorted(annotations)) if annotations else f"none in {image_id}"
    return ("said", target, " ".join(sentence.split()))


def pair_key(image_id: int, category_id: int) -> Key:
    """A sample by its image and its category (LVIS)."""
    return ("pair", str(image_id), str(category_id))


def key_of(line: Mapping[str, Any], place: str) -> Key:
    """What a line names: `id`; `ann_id` and `sentence`, with `image_id` where the target is -1; or `image_id` and
    `category_id`.

    Raises:
      UserError: none of these, or a field of another kind.
    """
    if "id" in line:
        if not isinstance(line["id"], int | str) or isinstance(line["id"], bool):
            raise UserError(f"{place}.id: expected a number or a text, found {line['id']!r:.60}")
        return id_key(line["id"])
    if "ann_id" in line and "sentence" in line:
        found = line["ann_id"] if isinstance(line["ann_id"], list) else [line["ann_id"]]
        numbers = tuple(_integer(number, f"{place}.ann_id") for number in found)
        if not isinstance(line["sentence"], str):
            raise UserError(f"{place}.sentence: expected a text, found {line['sentence']!r:.60}")
        if numbers != (-1,):
            return said_key(numbers, 0, line["sentence"])
        if "image_id" not in line:
            raise UserError(
                f"{place}.image_id: missing; without a target (ann_id -1) the image says which sample it is"
            )
        return said_key((), _integer(line["image_id"], f"{place}.image_id"), line["sentence"])
    if "image_id" in line and "category_id" in line:
        return pair_key(*(_integer(line[name], f"{place}.{name}") for name in ("image_id", "category_id")))
    raise UserError(f"{place}: says of no sample; give id, or ann_id and sentence, or image_id and category_id")


def _integer(value: Any, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{place}: expected a whole number, found {value!r:.60}")
    return value
