"""Outlines → few cubic Béziers, for export.

Source: Schneider, An algorithm for automatically fitting digitized curves (Graphics Gems, 1990): least squares
with given end tangents, reparameterised by Newton's method, divided where it strays most.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from jaxtyping import Float

from moonseg_jax.errors import UserError

SHARPEST_TURN = math.radians(50)
"""Vertices of the simplified outline that turn by more are corners; curves meet there at an angle."""

SAMPLE_STEP = 0.5
"""Distance of the samples a curve is fitted to, in pixels."""

_REPARAMETERISATIONS = 4


def fit_cubics(outline: Float[np.ndarray, "vertices 2"], tolerance: float = 0.5) -> Float[np.ndarray, "pieces 4 2"]:
    """Closed chain of cubics that stay within a tolerance of a closed polygon, and run the same way.

    The distance is that of every sample of the polygon, half a pixel apart at most, from the curve. Straight
    stretches between corners become straight cubics.

    Args:
      outline: at least three vertices, (x, y) in pixels; a simplified outline rather than stairs of pixels.
      tolerance: in pixels.

    Returns:
      Start, two controls and end of each piece; a piece starts where the one before ends, the last one ends where
      the first starts.

    Raises:
      UserError: fewer than three vertices, one that is not finite, or a tolerance that is not positive.
    """
    outline = np.asarray(outline, np.float64)
    if len(outline) < 3 or not np.isfinite(outline).all():
        raise UserError("outline: curves are fitted to three or more finite vertices")
    if not 0 < tolerance < math.inf:
        raise UserError(f"tolerance {tolerance}: give a positive number of pixels")
    outline = outline[np.any(outline != np.roll(outline, 1, axis=0), axis=1)]
    if len(outline) < 3:
        raise UserError("outline: curves are fitted to three or more different vertices")
    corners = _corners(outline)
    closed = np.roll(outline, -corners[0], axis=0)
    closed = np.concatenate([closed, closed[:1]])
    ends = [*(corners - corners[0]), len(outline)]
    pieces: list[np.ndarray] = []
    for first, last in itertools.pairwise(ends):
        points = _sampled(closed[first : last + 1])
        if len(corners) == 1 and not _is_corner(outline)[corners[0]]:
            along = _unit(points[1] - points[-2])
            pieces += _fit(points, along, -along, tolerance)
        else:
            pieces += _fit(points, _unit(points[1] - points[0]), _unit(points[-2] - points[-1]), tolerance)
    return np.array(pieces)


def distance_to_cubics(points: Float[np.ndarray, "n 2"], cubics: Float[np.ndarray, "pieces 4 2"]) -> float:
    """Largest distance of any point from the curve, to within the tenth part of a sixty-fourth of a piece."""
    t = np.linspace(0, 1, 65)
    chain = np.concatenate([_at(piece, t) for piece in cubics])
    start, way = chain[:-1], np.diff(chain, axis=0)
    square = np.maximum((way * way).sum(axis=1), 1e-30)
    farthest = 0.0
    for point in points:
        share = np.clip(((point - start) * way).sum(axis=1) / square, 0, 1)
        farthest = max(farthest, float(np.hypot(*(start + share[:, None] * way - point).T).min()))
    return farthest


def _is_corner(outline: np.ndarray) -> np.ndarray:
    into = outline - np.roll(outline, 1, axis=0)
    out = np.roll(into, -1, axis=0)
    turn = np.arctan2(into[:, 0] * out[:, 1] - into[:, 1] * out[:, 0], (into * out).sum(axis=1))
    return np.abs(turn) > SHARPEST_TURN


def _corners(outline: np.ndarray) -> np.ndarray:
    """Indices of the corners; the first vertex where there are none."""
    found = np.flatnonzero(_is_corner(outline))
    return found if len(found) else np.zeros(1, int)


def _sampled(points: np.ndarray) -> np.ndarray:
    """The polyline with points in between, its own among them."""
    way = np.diff(points, axis=0)
    counts = np.maximum(np.ceil(np.hypot(*way.T) / SAMPLE_STEP), 1).astype(int)
    stretches = [start + step * (np.arange(n)[:, None] / n) for start, step, n in zip(points, way, counts)]
    return np.concatenate([*stretches, points[-1:]])


def _fit(points: np.ndarray, leave: np.ndarray, arrive: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Cubics along an open run of samples; `leave` and `arrive` point into the curve at its ends."""
    straight = np.array([points[0], points[0] * 2 / 3 + points[-1] / 3, points[0] / 3 + points[-1] * 2 / 3, points[-1]])
    if len(points) == 2 or _strays(points, straight) <= 1e-9:
        return [straight]
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    t = length / length[-1]
    error = np.zeros(len(points))
    for _ in range(_REPARAMETERISATIONS + 1):
        cubic = _least_squares(points, t, leave, arrive)
        error = np.hypot(*(_at(cubic, t) - points).T)
        if error.max() <= tolerance:
            return [cubic]
        t = _reparameterised(cubic, points, t)
    middle = int(np.clip(np.argmax(error), 1, len(points) - 2))
    along = _unit(points[min(middle + 2, len(points) - 1)] - points[max(middle - 2, 0)])
    return [
        *_fit(points[: middle + 1], leave, -along, tolerance),
        *_fit(points[middle:], along, arrive, tolerance),
    ]


def _strays(points: np.ndarray, straight: np.ndarray) -> float:
    """Largest distance of points from the line through the ends, infinite where the ends meet."""
    way = straight[3] - straight[0]
    size = float(np.hypot(*way))
    offset = points - straight[0]
    return float(np.abs(offset[:, 0] * way[1] - offset[:, 1] * way[0]).max()) / size if size else math.inf


def _least_squares(points: np.ndarray, t: np.ndarray, leave: np.ndarray, arrive: np.ndarray) -> np.ndarray:
    """The cubic with given ends and tangents nearest to samples at parameters t (Schneider's equation 11)."""
    first, last = points[0], points[-1]
    b0, b1, b2, b3 = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
    a1, a2 = b1[:, None] * leave, b2[:, None] * arrive
    rest = points - (b0 + b1)[:, None] * first - (b2 + b3)[:, None] * last
    c11, c12, c22 = (a1 * a1).sum(), (a1 * a2).sum(), (a2 * a2).sum()
    x1, x2 = (a1 * rest).sum(), (a2 * rest).sum()
    determinant = c11 * c22 - c12 * c12
    chord = float(np.hypot(*(last - first)))
    reach1 = reach2 = max(chord, float(np.hypot(*np.diff(points, axis=0).T).sum()) / 2) / 3
    if determinant > 1e-12 * c11 * c22:
        solved1, solved2 = (x1 * c22 - x2 * c12) / determinant, (c11 * x2 - c12 * x1) / determinant
        if min(solved1, solved2) > 1e-6 * max(chord, 1e-9):
            reach1, reach2 = solved1, solved2
    return np.array([first, first + reach1 * leave, last + reach2 * arrive, last])


def _reparameterised(cubic: np.ndarray, points: np.ndarray, t: np.ndarray) -> np.ndarray:
    """One Newton step of every parameter towards the foot of its sample, kept in order."""
    velocity, bend = np.diff(cubic, axis=0) * 3, np.diff(cubic, n=2, axis=0) * 6
    s = (1 - t)[:, None]
    u = t[:, None]
    away = _at(cubic, t) - points
    first = s * s * velocity[0] + 2 * s * u * velocity[1] + u * u * velocity[2]
    second = s * bend[0] + u * bend[1]
    slope = (first * first).sum(axis=1) + (away * second).sum(axis=1)
    step = np.where(slope > 1e-12, (away * first).sum(axis=1) / np.where(slope > 1e-12, slope, 1.0), 0.0)
    moved = np.clip(t - step, 0, 1)
    moved[0], moved[-1] = 0, 1
    return np.maximum.accumulate(moved)


def _at(cubic: np.ndarray, t: np.ndarray) -> np.ndarray:
    u, s = t[:, None], 1 - t[:, None]
    return s**3 * cubic[0] + 3 * s * s * u * cubic[1] + 3 * s * u * u * cubic[2] + u**3 * cubic[3]


def _unit(vector: np.ndarray) -> np.ndarray:
    size = float(np.hypot(*vector))
    return vector / size if size else np.array([1.0, 0.0])
