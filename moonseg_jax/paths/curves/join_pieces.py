"""Runs of short Béziers → single ones, where one is close enough.

Source: Selinger, Potrace: a polygon-based tracing algorithm (2003), section 2.4. Points are complex numbers.
"""

from __future__ import annotations

import cmath
import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from moonseg_jax.paths.curves.smooth import RoundedPolygon, cross

TOLERANCE = 0.2
"""Farthest, in pixels, a joined Bézier may stray from what it replaces."""

_WIDEST_TURN = math.radians(179)

_AREA = 0.3
"""A Bézier with controls at share alpha of both tangents has 0.3 alpha (4 - alpha) of their triangle's area."""

_RISE = 0.75
"""Such a Bézier rises to 0.75 alpha of the triangle's height."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedCurve:
    """A closed path of corners and Béziers; it starts where it ends."""

    points: np.ndarray
    """float64[m, 3, 2], pixels: two control points and the end of each piece; the controls of a corner are its tip."""
    is_corner: np.ndarray
    """bool[m]: the piece goes straight to its tip and straight on to its end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """The pieces of a rounded polygon in order, from the end of its first one, as Python numbers."""

    knots: list[complex]
    """m + 1 points: where pieces start and end."""
    tips: list[complex]
    alphas: list[float]
    turns: list[int]
    """Direction each piece bends in, 1 or -1; 0 for corners and straight pieces."""
    bulges: list[float]
    """m + 1 running sums of the areas between pieces and their chords."""
    fans: list[float]
    """m + 1 running sums of the areas of the triangles of chords and the origin."""


def join_pieces(polygon: RoundedPolygon, tolerance: float = TOLERANCE) -> ClosedCurve:
    """The curve with the fewest pieces, and of those the one with the least squared deviations.

    Pieces are joined if they bend the same way, turn by less than 179 degrees in all, and the Bézier with the
    same tangents at both ends and the same area stays within the tolerance of all sides and pieces.
    """
    order = np.roll(np.arange(len(polygon.vertices)), -1)
    corner, controls = polygon.is_corner[order], polygon.controls[order]
    run = _run(polygon, order)
    count = [0]
    deviation = [0.0]
    before: list[tuple[int, tuple[complex, complex] | None]] = [(0, None)]
    for end in range(1, len(run.knots)):
        best = (count[-1] + 1, deviation[-1])
        chosen: tuple[int, tuple[complex, complex] | None] = (end - 1, None)
        for start in range(end - 2, -1, -1):
            joined = _joined(run, start, end, tolerance)
            if joined is None:
                break
            candidate = (count[start] + 1, deviation[start] + joined[0])
            if candidate < best:
                best, chosen = candidate, (start, joined[1])
        count.append(best[0])
        deviation.append(best[1])
        before.append(chosen)
    pieces, is_corner, end = [], [], len(run.knots) - 1
    while end > 0:
        start, replaced = before[end]
        first, second = replaced or controls[end - 1]
        pieces.append([[p.real, p.imag] for p in (first, second, run.knots[end])])
        is_corner.append(replaced is None and bool(corner[end - 1]))
        end = start
    return ClosedCurve(points=np.array(pieces[::-1]), is_corner=np.array(is_corner[::-1]))


def _run(polygon: RoundedPolygon, order: np.ndarray) -> _Run:
    tips, alphas = polygon.vertices[order], polygon.alphas[order]
    knots = np.append(polygon.ends[0], polygon.ends[order])
    turns = np.sign(cross(tips - np.roll(tips, 1), np.roll(tips, -1) - tips))
    bends = ~polygon.is_corner[order]
    # Relative to a point of the path: far from the origin the sums would lose precision.
    chords = cross(knots[:-1] - knots[0], knots[1:] - knots[0]) / 2
    triangles = cross(tips - knots[:-1], knots[1:] - knots[:-1]) / 2
    return _Run(
        knots=knots.tolist(),
        tips=tips.tolist(),
        alphas=alphas.tolist(),
        turns=np.where(bends, turns, 0).astype(int).tolist(),
        bulges=_running(np.where(bends, _AREA * alphas * (4 - alphas) * triangles, 0.0)),
        fans=_running(chords),
    )


def _running(values: Float[np.ndarray, " m"]) -> list[float]:
    return np.append(0.0, np.cumsum(values)).tolist()


def _joined(run: _Run, start: int, end: int, tolerance: float) -> tuple[float, tuple[complex, complex]] | None:
    """Sum of squared deviations and control points of the Bézier that joins the pieces start..end-1, if any may."""
    turn = run.turns[start]
    if turn == 0 or any(run.turns[piece] != turn for piece in range(start, end)):
        return None
    tips, m = run.tips, len(run.tips)
    leaving = tips[start] - tips[start - 1]
    for piece in range(start + 1, end):
        angle = cmath.phase((tips[(piece + 1) % m] - tips[piece]) * leaving.conjugate()) * turn
        if not 0 < angle <= _WIDEST_TURN:
            return None
    controls = _controls_of_equal_area(run, start, end)
    if controls is None:
        return None
    bezier = (run.knots[start], *controls, run.knots[end])
    at_sides = _deviation_from_sides(run, start, end, bezier, tolerance)
    at_pieces = _deviation_from_pieces(run, start, end, bezier, tolerance)
    return None if at_sides is None or at_pieces is None else (at_sides + at_pieces, controls)


def _controls_of_equal_area(run: _Run, start: int, end: int) -> tuple[complex, complex] | None:
    """Controls on the tangents at both ends, at the same share of the way to where the tangents meet."""
    first, last = run.knots[start], run.knots[end]
    out, into, chord = run.tips[start] - first, last - run.tips[end - 1], last - first
    parallel = _cross(out, into)
    if parallel == 0:
        return None
    share_out, share_into = _cross(chord, into) / parallel, _cross(out, chord) / parallel
    triangle = _cross(out, chord) * share_out / 2
    if triangle == 0:
        return None
    closing = _cross(first - run.knots[0], last - run.knots[0]) / 2
    area = run.bulges[end] - run.bulges[start] + run.fans[end] - run.fans[start] - closing
    within = 4 - area / triangle / _AREA
    if within < 0:
        return None
    alpha = 2 - math.sqrt(within)
    return first + alpha * share_out * out, last - alpha * share_into * into


def _deviation_from_sides(run: _Run, start: int, end: int, bezier: Sequence[complex], tolerance: float) -> float | None:
    """Sum of squared distances from the polygon's sides, each where the Bézier is parallel to it."""
    total = 0.0
    for tip, following in itertools.pairwise(run.tips[start:end]):
        side = following - tip
        point = _parallel_point(bezier, side)
        if point is None or _dot(side, point - tip) < 0 or _dot(side, following - point) < 0:
            return None
        distance = _cross(side, point - tip) / abs(side)
        if abs(distance) > tolerance:
            return None
        total += distance**2
    return total


def _deviation_from_pieces(
    run: _Run, start: int, end: int, bezier: Sequence[complex], tolerance: float
) -> float | None:
    """Sum of squared shortfalls: how much less than each piece the Bézier rises over the piece's chord."""
    total = 0.0
    for piece in range(start, end):
        knot = run.knots[piece]
        chord = run.knots[piece + 1] - knot
        point = _parallel_point(bezier, chord)
        if point is None:
            return None
        height = _RISE * run.alphas[piece] * _cross(chord, run.tips[piece] - knot) / abs(chord)
        reached = _cross(chord, point - knot) / abs(chord)
        shortfall = math.copysign(1, height) * (height - reached)
        if shortfall > tolerance:
            return None
        total += max(shortfall, 0.0) ** 2
    return total


def _parallel_point(bezier: Sequence[complex], direction: complex) -> complex | None:
    """Where the tangent of a Bézier is parallel to a direction; None where it never is.

    None, too, where the condition has no quadratic term: potrace keeps such arcs, which are symmetric, in pieces.
    """
    p0, p1, p2, p3 = bezier
    a, b, c = (_cross(q - p, direction) for p, q in itertools.pairwise(bezier))
    square, root = a - 2 * b + c, b * b - a * c
    if square == 0 or root < 0:
        return None
    for t in ((a - b + math.sqrt(root)) / square, (a - b - math.sqrt(root)) / square):
        if 0 <= t <= 1:
            s = 1 - t
            return s**3 * p0 + 3 * s * s * t * p1 + 3 * s * t * t * p2 + t**3 * p3
    return None


def _cross(a: complex, b: complex) -> float:
    return a.real * b.imag - a.imag * b.real


def _dot(a: complex, b: complex) -> float:
    return a.real * b.real + a.imag * b.imag
