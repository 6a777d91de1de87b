"""The geometry of every kind of shape: closed polygons in the unit circle.

Outer boundaries run with positive signed area (y down, clockwise on screen), holes the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from data_pipelines.lexicon import KINDS
from data_pipelines.shapes.draws import Draws

Contour = Float[np.ndarray, "V 2"]

_ROUND = 40
_ANGLES = np.arange(_ROUND) * (2 * math.pi / _ROUND)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def _circle(radius: float, x: float = 0.0, y: float = 0.0) -> Contour:
    return _CIRCLE * radius + (x, y)


def _rectangle(half_width: float, half_height: float) -> Contour:
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (half_width, half_height)


def _disc(draws: Draws) -> list[Contour]:
    return [_circle(1.0)]


def _ring(draws: Draws) -> list[Contour]:
    return [_circle(1.0), _circle(draws.between(0.5, 0.66))[::-1]]


def _square(draws: Draws) -> list[Contour]:
    return [_rectangle(math.sqrt(0.5), math.sqrt(0.5))]


def _frame(draws: Draws) -> list[Contour]:
    inner = math.sqrt(0.5) * draws.between(0.48, 0.62)
    return [_rectangle(math.sqrt(0.5), math.sqrt(0.5)), _rectangle(inner, inner)[::-1]]


def _triangle(draws: Draws) -> list[Contour]:
    angles = np.array([0.0, draws.between(1.9, 2.3), draws.between(3.98, 4.38)])
    return [np.stack([np.cos(angles), np.sin(angles)], axis=1)]


def _star(draws: Draws) -> list[Contour]:
    angles = np.arange(10) * (math.pi / 5)
    radii = np.where(np.arange(10) % 2 == 0, 1.0, draws.between(0.4, 0.5))
    return [np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]]


def _cross(draws: Draws) -> list[Contour]:
    arm = draws.between(0.24, 0.34)
    reach = math.sqrt(1 - arm * arm)
    corner = [(reach, -arm), (reach, arm), (arm, arm), (arm, reach)]
    merged = list(corner)
    for _ in range(3):
        corner = [(-y, x) for x, y in corner]
        merged += corner
    # Neighbouring quarters share the point at the end of an arm's side.
    return [np.array([point for i, point in enumerate(merged) if point != merged[i - 1]])]


def _crescent(draws: Draws) -> list[Contour]:
    shift, radius = draws.between(0.42, 0.56), draws.between(0.82, 0.92)
    # Where the unit circle and the circle around (shift, 0) that bites into it meet.
    meet = math.acos((1 + shift * shift - radius * radius) / (2 * shift))
    bite = math.atan2(math.sin(meet), math.cos(meet) - shift)
    outer = np.linspace(meet, 2 * math.pi - meet, 28)
    inner = np.linspace(2 * math.pi - bite, bite, 22)[1:-1]
    return [
        np.concatenate(
            [
                np.stack([np.cos(outer), np.sin(outer)], axis=1),
                np.stack([shift + radius * np.cos(inner), radius * np.sin(inner)], axis=1),
            ]
        )
    ]


def _corner(draws: Draws) -> list[Contour]:
    side, arm = math.sqrt(0.5), draws.between(0.42, 0.58)
    cut = -side + arm
    return [np.array([(-side, -side), (side, -side), (side, cut), (cut, cut), (cut, side), (-side, side)])]


def _bar(draws: Draws) -> list[Contour]:
    half = draws.between(0.15, 0.23)
    return [_rectangle(math.sqrt(1 - half * half), half)]


def _dots(draws: Draws) -> list[Contour]:
    count = draws.weighted((2, 3), (0.6, 0.4))
    radius = draws.between(0.36, 0.43) if count == 2 else draws.between(0.33, 0.4)
    reach = 1 - radius
    turns = [2 * math.pi * k / count for k in range(count)]
    return [_circle(radius, reach * math.cos(turn), reach * math.sin(turn))[::2] for turn in turns]


_OUTLINES: dict[str, Callable[[Draws], list[Contour]]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "frame": _frame,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "corner": _corner,
    "bar": _bar,
    "dots": _dots,
}
assert tuple(_OUTLINES) == KINDS


def outline(kind: str, draws: Draws) -> list[Contour]:
    """Contours of one instance of a kind, its proportions varied at random.

    Returns:
      Closed polygons inside the unit circle around the origin; outer boundaries have positive signed area
      (sum of x0*y1 - x1*y0), holes negative.
    """
    return _OUTLINES[kind](draws)


def signed_area(contour: Contour) -> float:
    """Signed area of a closed polygon by the shoelace formula."""
    x, y = contour[:, 0], contour[:, 1]
    inner = np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])
    return 0.5 * float(inner + x[-1] * y[0] - x[0] * y[-1])
