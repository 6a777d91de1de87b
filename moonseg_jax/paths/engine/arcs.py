"""Elliptical arcs of path data → cubic Béziers. Source: SVG 1.1, appendix F.6. Points are complex numbers."""

from __future__ import annotations

import cmath
import itertools
import math

Cubic = tuple[complex, complex, complex, complex]
"""Start, two control points, end."""


def arc_cubics(start: complex, radii: complex, rotation: float, large: bool, sweep: bool, end: complex) -> list[Cubic]:
    """Cubics that follow an arc to within 3 ten-thousandths of its radius, one per quarter turn at most.

    Args:
      start: where the arc starts.
      radii: along its two axes, as real and imaginary part; scaled up where they do not reach.
      rotation: of its first axis, in degrees.
      large: take the longer way round.
      sweep: go towards increasing angles.
      end: where the arc ends.

    Returns:
      Nothing where both ends are one point; a straight line where a radius is zero.
    """
    rx, ry = abs(radii.real), abs(radii.imag)
    if start == end:
        return []
    if rx == 0 or ry == 0:
        return [line_cubic(start, end)]
    turn = cmath.rect(1, math.radians(rotation))
    # On the unit circle, where the ellipse is a circle of radius 1 or, scaled up, of half the chord.
    half = _divided((start - end) / 2 * turn.conjugate(), rx, ry)
    reach = max(abs(half), 1.0)
    rx, ry, half = rx * reach, ry * reach, half / reach
    away = math.sqrt(max(1 / abs(half) ** 2 - 1, 0.0))
    centre = half * 1j * away * (1 if large != sweep else -1)
    first, last = cmath.phase(half - centre), cmath.phase(-half - centre)
    span = (last - first) % math.tau - (0 if sweep else math.tau)
    middle = (start + end) / 2
    count = math.ceil(abs(span) / (math.pi / 2) - 1e-9)
    pull = 4 / 3 * math.tan(span / count / 4) * 1j

    def placed(point: complex) -> complex:
        point += centre
        return middle + complex(point.real * rx, point.imag * ry) * turn

    directions = [cmath.rect(1, first + span * step / count) for step in range(count + 1)]
    knots = [start, *(placed(direction) for direction in directions[1:-1]), end]
    return [
        (knots[piece], placed(a + pull * a), placed(b - pull * b), knots[piece + 1])
        for piece, (a, b) in enumerate(itertools.pairwise(directions))
    ]


def line_cubic(start: complex, end: complex) -> Cubic:
    """A straight line as a cubic."""
    return start, start + (end - start) / 3, end - (end - start) / 3, end


def _divided(point: complex, x: float, y: float) -> complex:
    return complex(point.real / x, point.imag / y)
