"""Closed lattice paths → the polygon with the fewest sides that follows them, and the best among those.

Source: Selinger, Potrace: a polygon-based tracing algorithm (2003), section 2.2.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Running sums over the points of a closed path, twice around: moments of any stretch in two look-ups."""

    points: np.ndarray
    """int64[n, 2]."""
    sums: np.ndarray
    """float64[2 n + 1, 5]: x, y, x x, x y, y y of the points before each index, relative to the first."""

    @classmethod
    def of(cls, points: Int[np.ndarray, "n 2"]) -> Moments:
        """Sums of a closed path."""
        x, y = np.tile((points - points[0]).astype(np.float64), (2, 1)).T
        terms = np.stack([x, y, x * x, x * y, y * y], axis=1)
        return cls(points=points, sums=np.concatenate([np.zeros((1, 5)), np.cumsum(terms, axis=0)]))

    def stretch(
        self, first: Int[np.ndarray, "*k"], last: Int[np.ndarray, "*k"]
    ) -> tuple[Float[np.ndarray, "*k 2"], Float[np.ndarray, "*k 3"]]:
        """Mean and central second moments (x x, x y, y y) of the points first..last, both counted.

        Args:
          first: index from 0 to n - 1.
          last: at least `first`, below 2 n.
        """
        count = np.asarray(last - first + 1, np.float64)[..., None]
        mean = (self.sums[last + 1] - self.sums[first]) / count
        x, y = mean[..., 0], mean[..., 1]
        return mean[..., :2] + self.points[0], mean[..., 2:] - np.stack([x * x, x * y, y * y], axis=-1)


def optimal_polygon(moments: Moments) -> Int[np.ndarray, " m"]:
    """Indices of the path's points that are the vertices; the first one is 0.

    Among the polygons with the fewest sides, the one with the least sum of penalties: the length of a side
    times the root mean square distance of the path's points from it.
    """
    n = len(moments.points)
    farthest = _farthest_side(moments.points)
    nearest = np.searchsorted(np.maximum.accumulate(farthest), np.arange(n + 1))
    sides, penalty, before = np.zeros(n + 1, np.int64), np.zeros(n + 1), np.zeros(n + 1, np.int64)
    for end in range(1, n + 1):
        first = int(nearest[end])
        fewest = sides[first:end].min()
        starts = first + np.flatnonzero(sides[first:end] == fewest)
        total = penalty[starts] + _penalty(moments, starts, end)
        best = len(total) - 1 - int(np.argmin(total[::-1]))
        sides[end], penalty[end], before[end] = fewest + 1, total[best], starts[best]
    vertices, at = [], n
    while at > 0:
        at = int(before[at])
        vertices.append(at)
    return np.array(vertices[::-1])


def _penalty(moments: Moments, starts: Int[np.ndarray, " k"], end: int) -> Float[np.ndarray, " k"]:
    points = moments.points
    first, last = points[starts] - points[0], points[end % len(points)] - points[0]
    (side_x, side_y), (middle_x, middle_y) = (last - first).T, (last + first).T / 2
    count = end - starts + 1
    x, y, xx, xy, yy = (moments.sums[end + 1] - moments.sums[starts]).T
    spread_x = (xx - 2 * x * middle_x) / count + middle_x * middle_x
    spread_xy = (xy - x * middle_y - y * middle_x) / count + middle_x * middle_y
    spread_y = (yy - 2 * y * middle_y) / count + middle_y * middle_y
    squares = side_y * side_y * spread_x - 2 * side_x * side_y * spread_xy + side_x * side_x * spread_y
    return np.sqrt(np.maximum(squares, 0.0))


def _farthest_side(points: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
    """Where the longest side from each point may end, at most n: one point more on both ends is still straight."""
    n = len(points)
    reach = np.maximum(np.roll(_longest_straight(points), 1) - 2, 1)
    return np.minimum(np.arange(n) + reach, n)


def _longest_straight(points: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
    """Steps of the longest straight stretch from each point, such that every part of it is straight too.

    A stretch is straight if it does not go in all four directions and if every point of it lies, in the
    maximum norm, within 1 of the lines through any point before and any after it.
    """
    n = len(points)
    index = np.arange(n)
    step = np.roll(points, -1, axis=0) - points
    direction = np.where(step[:, 0] != 0, 1 << (step[:, 0] > 0), 4 << (step[:, 1] > 0))
    used = np.zeros(n, np.int64)
    lower, upper = np.zeros((2, n, 2), np.int64)
    steps = np.zeros(n, np.int64)
    active = index
    for length in range(1, n):
        used[active] |= direction[(active + length - 1) % n]
        reach = points[(active + length) % n] - points[active]
        fits = (used[active] != 15) & (_cross(lower[active], reach) >= 0) & (_cross(upper[active], reach) <= 0)
        active, reach = active[fits], reach[fits]
        if not len(active):
            break
        steps[active] = length
        _narrow(lower, upper, active, reach)
    end = np.concatenate([index, index + n]) + np.tile(steps, 2)
    return np.minimum.accumulate(end[::-1])[::-1][:n] - index


def _narrow(lower: np.ndarray, upper: np.ndarray, active: np.ndarray, reach: np.ndarray) -> None:
    """Narrows the cones of directions (from `lower` to `upper`) to lines that pass within 1 of the points at `reach`.

    A cone ends at the corners of the square around the point that are seen farthest apart from the origin.
    """
    x, y = reach.T
    toward_x, toward_y = np.where(y == 0, -np.sign(x), 0), np.where(x == 0, -np.sign(y), 0)
    far = np.abs(reach).max(axis=1) > 1
    low = reach + np.stack([np.sign(y) + toward_x, toward_y - np.sign(x)], axis=1)
    high = reach + np.stack([toward_x - np.sign(y), np.sign(x) + toward_y], axis=1)
    narrower = far & (_cross(lower[active], low) >= 0)
    lower[active[narrower]] = low[narrower]
    narrower = far & (_cross(upper[active], high) <= 0)
    upper[active[narrower]] = high[narrower]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
