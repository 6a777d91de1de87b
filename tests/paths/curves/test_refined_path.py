"""Smooth paths of masks."""

import itertools

import numpy as np
import pytest
from mask_samples import smooth_shapes

from moonseg_jax.paths.curves.boundary import boundaries
from moonseg_jax.paths.curves.join_pieces import join_pieces
from moonseg_jax.paths.curves.optimal_polygon import Moments, _longest_straight, optimal_polygon
from moonseg_jax.paths.curves.refined_path import refined_path, trace_curves
from moonseg_jax.paths.curves.smooth import smooth
from moonseg_jax.paths.engine.path_data import flatten
from moonseg_jax.paths.engine.render import coarse_mask, render_path
from moonseg_jax.paths.trace import signed_area


def canvas(*rectangles: tuple[int, int, int, int], size: int = 20) -> np.ndarray:
    """A mask of filled rectangles x0, y0, x1, y1."""
    mask = np.zeros((size, size), bool)
    for x0, y0, x1, y1 in rectangles:
        mask[y0:y1, x0:x1] = True
    return mask


def drawn(mask: np.ndarray) -> np.ndarray:
    """The refined path of a mask, drawn at its size."""
    traced = refined_path(mask)
    x0, y0, x1, y1 = traced.box
    box = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
    return coarse_mask(render_path(traced.path, box, *mask.shape))


def polyline(curve) -> np.ndarray:
    """Vertices of a closed curve; the two halves of a corner are straight."""
    starts = np.roll(curve.points[:, 2], 1, axis=0)
    pieces = []
    for start, (first, second, end), corner in zip(starts, curve.points, curve.is_corner):
        if corner:
            pieces.append([first, end])
        else:
            pieces.append(flatten(np.array([[start, first, second, end]]), 1e-3)[1:])
    return np.concatenate(pieces)


def test_a_rectangle_has_four_corners_and_its_own_box():
    traced = refined_path(canvas((8, 10, 28, 18), size=40))
    assert traced.path == (
        "M.000,.500L.000,.000L.500,.000L1.000,.000L1.000,.500L1.000,1.000L.500,1.000L.000,1.000L.000,.500z"
    )
    assert traced.box == (0.2, 0.25, 0.7, 0.45)


@pytest.mark.parametrize("name", smooth_shapes())
def test_smooth_shapes_come_back(name):
    """Vertices move inwards by up to half a pixel where they cut curves, so small dots shrink the most."""
    mask = smooth_shapes()[name]
    got = drawn(mask)
    assert (got & mask).sum() / (got | mask).sum() >= 0.94


def test_a_disc_is_a_few_beziers():
    y, x = np.mgrid[:90, :90]
    (curve,) = trace_curves((x - 44.5) ** 2 + (y - 44.5) ** 2 < 40**2)
    assert len(curve.points) <= 12 and not curve.is_corner.any()
    radius = np.linalg.norm(polyline(curve) - 45, axis=1)
    assert 39.49 < radius.min() and radius.max() < 40.1


def test_holes_run_against_outlines():
    mask = canvas((2, 2, 38, 38), size=40)
    mask[8:20, 6:26] = False
    areas = [signed_area(polyline(curve)) for curve in trace_curves(mask)]
    assert areas == pytest.approx([36 * 36, -12 * 20])
    np.testing.assert_array_equal(drawn(mask), mask)


def test_the_rarer_colour_joins_where_pixels_touch_at_a_corner():
    mask = canvas((7, 7, 10, 10), (10, 10, 13, 13))
    assert [boundary.is_hole for boundary in boundaries(mask)] == [False]
    assert [boundary.is_hole for boundary in boundaries(~mask)] == [False, True]


def test_specks_are_left_out():
    mask = canvas((2, 2, 12, 12), (15, 15, 17, 16), (15, 3, 18, 4))
    mask[5, 5:7] = False
    assert sorted(signed_area(boundary.points) for boundary in boundaries(mask)) == [3, 100]
    assert refined_path(canvas((3, 3, 5, 4))) is None
    assert refined_path(canvas()) is None


def random_boundary(seed: int) -> np.ndarray:
    mask = np.random.default_rng(seed).random((9, 9)) < 0.6
    return max((boundary.points for boundary in boundaries(mask)), key=len)


@pytest.mark.parametrize("seed", range(4))
def test_straight_stretches_are_those_of_the_definition(seed):
    """No fourth direction, and every point within 1, in the maximum norm, of the line of any two around it."""
    points = random_boundary(seed)
    n = len(points)

    def straight(first: int, last: int) -> bool:
        stretch = points[np.arange(first, last + 1) % n]
        if len({tuple(step) for step in np.diff(stretch, axis=0).tolist()}) == 4:
            return False
        for a, b, c in itertools.combinations(stretch, 3):
            (dx, dy), (x, y) = c - a, b - a
            if abs(dx * y - dy * x) > abs(dx) + abs(dy):
                return False
        return True

    expected = [next(k for k in itertools.count(1) if not straight(first, first + k + 1)) for first in range(n)]
    assert _longest_straight(points).tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_the_polygon_has_the_fewest_sides_and_then_the_least_penalty(seed):
    """Against a search over all ways, with penalties from their definition."""
    points = random_boundary(seed)
    n = len(points)
    reach = _longest_straight(points)

    def penalty(first: int, last: int) -> float:
        stretch = points[np.arange(first, last + 1) % n]
        side = stretch[-1] - stretch[0]
        distances = (side[0] * (stretch - stretch[0])[:, 1] - side[1] * (stretch - stretch[0])[:, 0]) / np.hypot(*side)
        return float(np.hypot(*side) * np.sqrt(np.mean(distances**2)))

    best = {0: (0, 0.0)}
    for end in range(1, n + 1):
        ways = [
            (best[start][0] + 1, best[start][1] + penalty(start, end))
            for start in range(end)
            if end - start <= max(int(reach[start - 1]) - 2, 1)
        ]
        best[end] = min(ways)
    vertices = optimal_polygon(Moments.of(points)).tolist()
    total = sum(penalty(start, end) for start, end in itertools.pairwise([*vertices, n]))
    assert vertices[0] == 0
    assert (len(vertices), total) == pytest.approx(best[n])


def test_joined_pieces_are_fewer_and_stay_within_the_tolerance():
    y, x = np.mgrid[:80, :120]
    mask = ((x - 60) / 50) ** 2 + ((y - 40) / 25) ** 2 < 1
    (boundary,) = boundaries(mask)
    moments = Moments.of(boundary.points)
    rounded = smooth(moments, optimal_polygon(moments), reverse=False)
    apart, joined = join_pieces(rounded, tolerance=0.0), join_pieces(rounded)
    assert len(joined.points) <= len(apart.points) / 2
    gaps = np.abs(polyline(joined)[:, None] - polyline(apart)[None]).max(axis=-1).min(axis=1)
    assert gaps.max() < 0.35
