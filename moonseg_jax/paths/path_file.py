"""Path files: JSON with box, commands and numbers, or an SVG document. Both are written and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moonseg_jax.config import PATH_UNITS
from moonseg_jax.errors import UserError
from moonseg_jax.paths.placed_path import PlacedPath, commands_of_text
from moonseg_jax.paths.svg_file import path_from_svg, svg_of_path

SUFFIXES = (".json", ".svg")
MAX_BYTES = 64 * 2**20
"""Largest file that is read."""

_BOX = ("cx", "cy", "w", "h")


def check_suffix(file: Path) -> None:
    """Refuses names of other kinds of files.

    Raises:
      UserError: the name does not end in .json or .svg.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"{file}: the name of a path file must end in {' or '.join(SUFFIXES)}")


def write_path(path: PlacedPath, file: Path, *, height: int, width: int, photo: str | None = None) -> None:
    """Writes a path.

    Args:
      path: what to write.
      file: .json or .svg.
      height: of the image in pixels, for the SVG.
      width: of the image in pixels, for the SVG.
      photo: address or data URI of the photo to show beneath the path of an SVG.

    Raises:
      UserError: another ending, or the file cannot be written.
    """
    check_suffix(file)
    if file.suffix.lower() == ".svg":
        text = svg_of_path(path, height=height, width=width, photo=photo)
    else:
        text = json_of_path(path)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from error


def read_path(file: Path) -> PlacedPath:
    """Reads a path file; also the `.json` and `.svg` that `moonseg segment` writes.

    Raises:
      UserError: another ending, a file that cannot be read, or one that holds no path; the message names the field.
    """
    check_suffix(file)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UserError(f"{file}: larger than the limit of {MAX_BYTES} bytes")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        return path_from_svg(text) if file.suffix.lower() == ".svg" else path_from_json(text)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def json_of_path(path: PlacedPath) -> str:
    """JSON text: `box` in units of the image, `commands`, and `numbers` of each command in `units` to the box."""
    content = {"box": dict(zip(_BOX, path.box)), "units": PATH_UNITS, "rule": path.rule}
    head = json.dumps(content, indent=1).removesuffix("\n}")
    numbers = [[int(value) if value == int(value) else value for value in operands] for operands in path.numbers]
    return f'{head},\n "commands": {json.dumps(path.commands)},\n "numbers": {json.dumps(numbers)}\n}}\n'


def path_from_json(text: str) -> PlacedPath:
    """Reads what `json_of_path` writes, or the answer of `moonseg segment`.

    Raises:
      UserError: not JSON, or a field that is missing or not what it should be.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError("not a path: the JSON must be an object with the fields box, commands and numbers")
    if "drawn_box" in content and "commands" not in content:
        return _path_of_answer(content)
    units = content.get("units", PATH_UNITS)
    if units != PATH_UNITS:
        raise UserError(f"field units: {units!r}, but the box has {PATH_UNITS} units")
    rule = content.get("rule", "nonzero")
    if rule not in ("nonzero", "evenodd"):
        raise UserError(f"field rule: {rule!r} is neither nonzero nor evenodd")
    commands, numbers = _listed(content, "commands"), _listed(content, "numbers")
    if not all(isinstance(letter, str) for letter in commands):
        raise UserError("field commands: give letters")
    if not all(isinstance(operands, list) for operands in numbers):
        raise UserError("field numbers: give a list of numbers for every command, empty for Z")
    return PlacedPath(
        box=_box(content, "box"),
        commands=tuple(commands),
        numbers=tuple(tuple(_number(value, "numbers") for value in operands) for operands in numbers),
        rule=rule,
    )


def _path_of_answer(content: dict[str, Any]) -> PlacedPath:
    """The answer's path is text in units of the box; a box of 960 such units takes its numbers as they are."""
    if not isinstance(content.get("path"), str):
        raise UserError("field path is missing; it holds SVG path data")
    cx, cy, w, h = _box(content, "drawn_box")
    commands, numbers = commands_of_text(content["path"])
    grown = (cx - w / 2 + PATH_UNITS * w / 2, cy - h / 2 + PATH_UNITS * h / 2, PATH_UNITS * w, PATH_UNITS * h)
    return PlacedPath(box=grown, commands=commands, numbers=numbers)


def _box(content: dict[str, Any], field: str) -> tuple[float, float, float, float]:
    box = content.get(field)
    if not isinstance(box, dict) or set(box) != set(_BOX):
        raise UserError(f"field {field}: give cx, cy, w and h, in units of the image")
    cx, cy, w, h = (_number(box[side], field) for side in _BOX)
    return cx, cy, w, h


def _listed(content: dict[str, Any], field: str) -> list[Any]:
    values = content.get(field)
    if not isinstance(values, list):
        raise UserError(f"field {field} is missing; it holds a list with one entry for every command")
    return values


def _number(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise UserError(f"field {field}: {value!r:.40} is no finite number")
    return float(value)
