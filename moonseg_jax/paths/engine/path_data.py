"""SVG path data → cubic Béziers: every command, absolute and relative, implicit repetition, compact numbers.

Source: SVG 1.1, section 8.3. As renderers do, what comes before an error is kept and the error is named.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from moonseg_jax.errors import UserError
from moonseg_jax.paths.engine.arcs import Cubic, arc_cubics, line_cubic

COMMAND_NUMBERS = {letter: count for letter, count in zip("ZHVMLTSQCA", (0, 1, 1, 2, 2, 2, 4, 4, 6, 7))}
COMMAND_NUMBERS |= {letter.lower(): count for letter, count in COMMAND_NUMBERS.items()}
"""Numbers that one repetition of each command takes."""

LARGEST_NUMBER = 1e9
"""Numbers beyond it are refused: sums and squares of the others stay finite."""

MOST_PARTS = 4096
"""Straight parts of one flattened cubic, at most: text cannot ask for more memory than it is worth."""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_FLAG = re.compile(r"[01]")
_SEPARATOR = re.compile(r"\s*,?\s*")
_BLANK = re.compile(r"\s*")
_ARC_FLAGS = (3, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathData:
    """What path data draws, in its own units."""

    subpaths: tuple[np.ndarray, ...]
    """float64[pieces, 4, 2] each: cubics, every one starting where the one before ends; lines are cubics too."""
    error: str | None
    """Where reading stopped, and why."""


def read_path_data(text: str) -> PathData:
    """Reads path data up to its end or the first error. Subpaths without any piece are left out.

    Lines and quadratic curves become the cubics that draw them exactly, arcs close ones.
    """
    pen = _Pen()
    error = None
    try:
        for letter, numbers in _commands(text):
            pen.draw(letter, numbers)
    except UserError as stop:
        error = str(stop)
    return PathData(subpaths=tuple(pen.finish()), error=error)


def polygons_of_path(text: str, tolerance: float = 1e-4) -> list[np.ndarray]:
    """The subpaths of path data as polygons, float64[vertices, 2], curves flattened.

    Args:
      text: path data.
      tolerance: farthest a curve may stray from its polygon, in the units of the text.

    Raises:
      UserError: the text is no path data; the message gives the position.
    """
    data = read_path_data(text)
    if data.error is not None:
        raise UserError(data.error)
    return [flatten(subpath, tolerance) for subpath in data.subpaths]


def flatten(cubics: np.ndarray, tolerance: float) -> np.ndarray:
    """Vertices float64[n, 2] of a chain of cubics, its last end included.

    A cubic is divided evenly into as many parts as keep it within the tolerance (Wang's formula, from the
    second differences of the control points), `MOST_PARTS` at most; straight ones stay whole.

    Args:
      cubics: float64[pieces, 4, 2].
      tolerance: in their units.
    """
    bend = np.linalg.norm(np.diff(cubics, n=2, axis=1), axis=-1).max(axis=1)
    parts = np.clip(np.ceil(np.sqrt(0.75 * bend / tolerance)), 1, MOST_PARTS).astype(int)
    vertices = [cubics[:1, 0]]
    for (p0, p1, p2, p3), count in zip(cubics, parts):
        t = np.arange(1, count + 1)[:, None] / count
        s = 1 - t
        vertices.append(s**3 * p0 + 3 * s * s * t * p1 + 3 * s * t * t * p2 + t**3 * p3)
        vertices[-1][-1] = p3
    return np.concatenate(vertices)


class _Pen:
    """The current point, and what was drawn so far."""

    def __init__(self) -> None:
        self._done: list[list[Cubic]] = []
        self._pieces: list[Cubic] = []
        self._at = self._start = 0j
        self._control: tuple[str, complex] = ("", 0j)

    def finish(self) -> Iterator[np.ndarray]:
        """All subpaths with at least one piece."""
        for pieces in (*self._done, self._pieces):
            if pieces:
                points = np.array(pieces)
                yield np.stack([points.real, points.imag], axis=-1)

    def draw(self, letter: str, numbers: tuple[float, ...]) -> None:
        """One repetition of a command."""
        kind, origin = letter.upper(), self._at if letter.islower() else 0j
        here, before = self._at, self._control
        self._control = ("", 0j)
        match kind:
            case "Z":
                if here != self._start:
                    self._to(line_cubic(here, self._start))
                self._begin(self._start)
            case "M":
                self._begin(origin + complex(*numbers))
            case "H":
                self._to(line_cubic(here, complex(origin.real + numbers[0], here.imag)))
            case "V":
                self._to(line_cubic(here, complex(here.real, origin.imag + numbers[0])))
            case "A":
                rx, ry, rotation, large, sweep, x, y = numbers
                end = origin + complex(x, y)
                for cubic in arc_cubics(here, complex(rx, ry), rotation, bool(large), bool(sweep), end):
                    self._to(cubic)
            case _:
                points = [origin + complex(x, y) for x, y in zip(numbers[::2], numbers[1::2])]
                if kind in "ST":
                    family, control = before
                    points.insert(0, 2 * here - control if family == {"S": "C", "T": "Q"}[kind] else here)
                self._curve(here, points)

    def _curve(self, here: complex, points: list[complex]) -> None:
        end = points[-1]
        match points[:-1]:
            case []:
                self._to(line_cubic(here, end))
            case [control]:
                self._to((here, here + (control - here) * 2 / 3, end + (control - end) * 2 / 3, end))
                self._control = ("Q", control)
            case [first, second]:
                self._to((here, first, second, end))
                self._control = ("C", second)

    def _begin(self, point: complex) -> None:
        if self._pieces:
            self._done.append(self._pieces)
        self._pieces = []
        self._at = self._start = point

    def _to(self, cubic: Cubic) -> None:
        self._pieces.append(cubic)
        self._at = cubic[3]


def _commands(text: str) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Letter and numbers of every repetition of every command; pairs after those of a move are line-tos."""
    position = _after(_BLANK, text, 0)
    if position < len(text) and text[position] not in "Mm":
        raise UserError(f"path data, position {position}: {text[position]!r} comes before the first M")
    while position < len(text):
        letter = text[position]
        if letter not in COMMAND_NUMBERS:
            raise UserError(f"path data, position {position}: {letter!r} is no command letter")
        position = _after(_BLANK, text, position + 1)
        again = True
        while again:
            numbers, position = _numbers(text, position, letter)
            yield letter, numbers
            letter = {"M": "L", "m": "l"}.get(letter, letter)
            again = bool(numbers) and _NUMBER.match(text, position) is not None


def _numbers(text: str, position: int, letter: str) -> tuple[tuple[float, ...], int]:
    """The numbers of one repetition, and the position after them."""
    numbers = []
    for index in range(COMMAND_NUMBERS[letter]):
        pattern = _FLAG if letter in "Aa" and index in _ARC_FLAGS else _NUMBER
        word = pattern.match(text, position)
        if word is None:
            raise UserError(
                f"path data, position {position}: {letter} takes {COMMAND_NUMBERS[letter]} numbers at a time, "
                f"number {index + 1} is missing"
            )
        number = float(word[0])
        if not math.fabs(number) <= LARGEST_NUMBER:
            raise UserError(f"path data, position {position}: {word[0]:.20} is beyond {LARGEST_NUMBER:.0e}")
        numbers.append(number)
        position = _after(_SEPARATOR, text, word.end())
    return tuple(numbers), position


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position
