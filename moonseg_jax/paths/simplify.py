"""Simplification of traced outlines: few vertices, placed where the edges between them fit best."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, Int

_LONG_RUN = 2
"""Pixel edges on both sides from which on a corner is taken for a corner and not for a step of a slant."""

_RIDGE = 0.05
"""Pull towards the vertex on the outline, against the unit pull of each fitted line."""

_REACH = 1.0
"""Farthest a fitted vertex moves from the outline, in pixels per axis."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stairs:
    """A traced outline prepared for simplification.

    A slanted edge is traced as stairs, whose corners lie off the edge on both sides, but the midpoints of
    their runs lie on it. So vertices are chosen among midpoints and those corners that join two long runs.
    """

    points: np.ndarray
    """int32[2 * runs, 2], in half pixels: start and midpoint of every run, in order."""
    candidates: np.ndarray
    """int64[n]: indices of the points that may become vertices."""

    @classmethod
    def of_outline(cls, outline: Int[np.ndarray, "vertices 2"]) -> Stairs:
        """Prepares a closed polygon along pixel edges (see `trace`)."""
        start = outline.astype(np.int32) * 2
        end = np.concatenate([start[1:], start[:1]])
        run = np.abs(end - start).sum(axis=1) // 2
        run_before = np.concatenate([run[-1:], run[:-1]])
        is_corner = np.minimum(run, run_before) >= _LONG_RUN
        end_is_corner = np.concatenate([is_corner[1:], is_corner[:1]])
        points = np.stack([start, (start + end) // 2], axis=1).reshape(-1, 2)
        is_candidate = np.stack([is_corner, ~(is_corner & end_is_corner)], axis=1).ravel()
        return cls(points=points, candidates=np.flatnonzero(is_candidate))

    def choose(self, tolerance: float) -> Int[np.ndarray, " chosen"]:
        """Indices of the points that Ramer-Douglas-Peucker keeps, ascending.

        Args:
          tolerance: largest distance, in pixels, between the candidates and the polygon through the chosen.
        """
        candidates = self.points[self.candidates]
        kept = cv2.approxPolyDP(candidates[:, None], 2 * tolerance, closed=True)[:, 0]
        if len(kept) < 3:
            return self.candidates[:0]
        return self.candidates[np.isin(_key(candidates), _key(kept))]

    def fit(self, chosen: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen 2"]:
        """Vertices in pixels, moved to where the lines fitted to the outline on both sides meet.

        Each side's line is the total least squares fit to the outline between its two chosen points (the
        idea of the vertex adjustment in Selinger, Potrace, 2003, section 2.3.1). Chords cut curves short;
        fitted lines balance area on both sides.
        """
        points = np.roll(self.points, -chosen[0], axis=0) / 2
        origin, at = points[0].copy(), chosen - chosen[0]
        points -= origin
        normal, offset = _fitted_lines(points, at)
        normal_before = np.concatenate([normal[-1:], normal[:-1]])
        offset_before = np.concatenate([offset[-1:], offset[:-1]])
        vertex = points[at]
        xx = normal[:, 0] ** 2 + normal_before[:, 0] ** 2 + _RIDGE
        xy = normal[:, 0] * normal[:, 1] + normal_before[:, 0] * normal_before[:, 1]
        yy = normal[:, 1] ** 2 + normal_before[:, 1] ** 2 + _RIDGE
        pull = normal * offset[:, None] + normal_before * offset_before[:, None] + _RIDGE * vertex
        determinant = xx * yy - xy * xy
        x = (yy * pull[:, 0] - xy * pull[:, 1]) / determinant
        y = (xx * pull[:, 1] - xy * pull[:, 0]) / determinant
        moved = np.stack([x, y], axis=1) - vertex
        return origin + vertex + np.clip(moved, -_REACH, _REACH)


def simplify(outline: Int[np.ndarray, "vertices 2"], tolerance: float) -> Float[np.ndarray, "fewer 2"]:
    """Simplifies a traced outline; see `Stairs`.

    Args:
      outline: closed polygon along pixel edges.
      tolerance: in pixels; 0 keeps the outline as it is.

    Returns:
      Vertices in pixels; none if the outline is smaller than the tolerance.
    """
    if tolerance <= 0:
        return outline.astype(np.float64)
    stairs = Stairs.of_outline(outline)
    chosen = stairs.choose(tolerance)
    return stairs.fit(chosen) if len(chosen) else np.zeros((0, 2))


def _key(points: np.ndarray) -> np.ndarray:
    return points[:, 1].astype(np.int64) << 32 | points[:, 0]


def _fitted_lines(points: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines `normal · x = offset` fitted to the outline from each index in `at` to the next.

    The outline consists of straight pieces of length l, direction d and centre c, whose second moment is
    `l (c cᵀ + l² d dᵀ / 12)`.
    """
    piece = np.concatenate([points[1:], points[:1]]) - points
    length = np.abs(piece).sum(axis=1)
    x, y = (points + piece / 2).T
    moments = np.stack(
        [np.ones_like(x), x, y, x * x + piece[:, 0] ** 2 / 12, x * y, y * y + piece[:, 1] ** 2 / 12], axis=1
    )
    total, sx, sy, sxx, sxy, syy = np.add.reduceat(moments * length[:, None], at, axis=0).T
    mx, my = sx / total, sy / total
    angle = 0.5 * np.arctan2(2 * (sxy / total - mx * my), sxx / total - mx * mx - (syy / total - my * my))
    normal = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    return normal, normal[:, 0] * mx + normal[:, 1] * my
