"""A path and the box it is relative to: what path files hold, on the host."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from moonseg_jax.config import PATH_UNITS
from moonseg_jax.errors import UserError
from moonseg_jax.paths.engine.path_data import COMMAND_NUMBERS, flatten, read_path_data

MAX_NUMBERS = 400_000
"""Most numbers of one path."""

MAX_NUMBER = 1e9
"""Largest number of a path, and of a box, either sign."""

MAX_REACH = 100.0
"""Farthest a point may lie from the image, in sides of it; single precision draws no finer farther out."""

_STRAY = 0.02
"""Pixels that a flattened curve may stray; 2 % of the pixels it passes, at most."""

_COMMAND = re.compile(rf"([{''.join(COMMAND_NUMBERS)}])([^{''.join(COMMAND_NUMBERS)}]*)")
_NUMBER = re.compile(r"\s*,?\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_FLAG = re.compile(r"\s*,?\s*([01])")
_ARC_FLAGS = (3, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacedPath:
    """Commands and numbers in a box of 960 units, and where that box lies in the image."""

    box: tuple[float, float, float, float]
    """cx, cy, w, h in units of the image; it may reach over the border, and all zeros go with no path."""
    commands: tuple[str, ...]
    """Letters of SVG path data, either case."""
    numbers: tuple[tuple[float, ...], ...]
    """The numbers of each command, one or several repetitions; the box is 960 wide and high."""
    rule: Literal["nonzero", "evenodd"] = "nonzero"
    """What counts as inside."""

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn.

        Raises:
          UserError: a box that is not finite or has a negative size, letters or counts of numbers that are no path
            data, numbers that are not finite or too many, or points far outside the image.
        """
        if len(self.box) != 4 or not all(map(_is_usual, self.box)) or min(self.box[2:]) < 0:
            raise UserError(f"box {list(self.box)}: give finite cx, cy, w, h with w and h of at least 0")
        if len(self.commands) != len(self.numbers):
            raise UserError(
                f"{len(self.commands)} commands and {len(self.numbers)} lists of numbers: each command has one list"
            )
        for index, (letter, numbers) in enumerate(zip(self.commands, self.numbers)):
            _check_command(index, letter, numbers)
        if sum(map(len, self.numbers)) > MAX_NUMBERS:
            raise UserError(f"the path has more than {MAX_NUMBERS} numbers; trace it with a larger --tolerance")
        _check_reach(self)

    @classmethod
    def from_polygons(cls, polygons: Sequence[Int[np.ndarray, "vertices 2"]], box: Sequence[float]) -> PlacedPath:
        """The path of closed polygons: absolute `M`, one `L` with all further vertices, `Z`.

        Args:
          polygons: (x, y) in the 960-unit box, three vertices or more each.
          box: cx, cy, w, h in units of the image.
        """
        cx, cy, w, h = map(float, box)
        points = [tuple(polygon.ravel().tolist()) for polygon in polygons]
        return cls(
            box=(cx, cy, w, h),
            commands=("M", "L", "Z") * len(points),
            numbers=tuple(numbers for polygon in points for numbers in (polygon[:2], polygon[2:], ())),
        )

    @classmethod
    def from_cubics(cls, chains: Sequence[Float[np.ndarray, "pieces 4 2"]], box: Sequence[float]) -> PlacedPath:
        """The path of closed chains of cubics: absolute `M`, one `C` with all pieces, `Z`.

        Args:
          chains: start, two controls and end of each piece, (x, y) in the 960-unit box.
          box: cx, cy, w, h in units of the image.
        """
        cx, cy, w, h = map(float, box)
        points = [(tuple(chain[0, 0].tolist()), tuple(chain[:, 1:].ravel().tolist())) for chain in chains]
        return cls(
            box=(cx, cy, w, h),
            commands=("M", "C", "Z") * len(points),
            numbers=tuple(numbers for start, pieces in points for numbers in (start, pieces, ())),
        )

    @property
    def text(self) -> str:
        """SVG path data in the 960-unit box, words joined by single blanks."""
        words: list[str] = []
        for letter, numbers in zip(self.commands, self.numbers):
            words += [letter, *(f"{int(value)}" if value == int(value) else f"{value!r}" for value in numbers)]
        return " ".join(words)

    def polygons(self, height: int, width: int) -> list[Float[np.ndarray, "vertices 2"]]:
        """Subpaths as closed polygons, (x, y) in pixels, curves flattened to within .02 pixels.

        Args:
          height: of the image, in pixels.
          width: of the image, in pixels.
        """
        return [flatten(subpath * (width, height), _STRAY) for subpath in self._subpaths()]

    def _subpaths(self) -> list[Float[np.ndarray, "pieces 4 2"]]:
        """Cubics of every subpath, in units of the image."""
        try:
            data = read_path_data(self.text)
        except (ArithmeticError, ValueError) as error:
            raise UserError(f"the path has an arc whose radii and ends no ellipse joins ({error})") from error
        if data.error is not None:
            raise UserError(data.error)
        cx, cy, w, h = self.box
        return [(cx - w / 2, cy - h / 2) + subpath / PATH_UNITS * (w, h) for subpath in data.subpaths]


def commands_of_text(text: str) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]:
    """Letters and numbers of SVG path data, for `PlacedPath`.

    Raises:
      UserError: what is neither letter nor number; the message gives the position.
    """
    letters, numbers = [], []
    position = len(text) - len(text.lstrip())
    for command in _COMMAND.finditer(text):
        if command.start() != position:
            break
        letters.append(command[1])
        numbers.append(_operands(command[1], command[2], command.start(2)))
        position = command.end()
    if position < len(text):
        raise UserError(f"path data, position {position}: {text[position : position + 10]!r} comes before any command")
    return tuple(letters), tuple(numbers)


def _operands(letter: str, text: str, start: int) -> tuple[float, ...]:
    numbers: list[float] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        is_flag = letter in "Aa" and len(numbers) % COMMAND_NUMBERS["A"] in _ARC_FLAGS
        word = (_FLAG if is_flag else _NUMBER).match(text, position)
        if word is None:
            excerpt = text[position : position + 10]
            raise UserError(f"path data, position {start + position}: {excerpt!r} is no number of {letter}")
        numbers.append(float(word[1]))
        position = word.end()
    return tuple(numbers)


def _check_command(index: int, letter: str, numbers: Sequence[float]) -> None:
    takes = COMMAND_NUMBERS.get(letter)
    if takes is None:
        raise UserError(f"command {index}: {letter!r} is no letter of path data")
    if index == 0 and letter not in "Mm":
        raise UserError(f"command 0: {letter!r} comes before the first M")
    complete = len(numbers) % takes == 0 and len(numbers) > 0 if takes else not numbers
    if not complete:
        raise UserError(f"command {index}: {letter} takes {takes} numbers at a time and has {len(numbers)}")
    if not all(map(_is_usual, numbers)):
        raise UserError(f"command {index}: {letter} has a number that is not finite, or beyond {MAX_NUMBER:.0e}")


def _is_usual(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= MAX_NUMBER


def _check_reach(path: PlacedPath) -> None:
    for subpath in path._subpaths():
        reach = float(np.abs(subpath).max())
        if not reach <= MAX_REACH:
            raise UserError(f"the path reaches {reach:.3g} image sides away; the limit is {MAX_REACH:.0f}")
