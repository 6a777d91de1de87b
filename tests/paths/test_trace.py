"""Tracing: exact outlines, their order and direction, and their simplification."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely
from mask_samples import blob, corner_cases, ellipse, smooth_shapes

from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.simplify import Stairs, simplify
from moonseg_jax.paths.trace import signed_area, trace, without_straight_vertices

MASKS = {**corner_cases(), **smooth_shapes(), "empty": np.zeros((9, 7), bool)}


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    return [polygon for part in trace(mask) for polygon in part.polygons]


@pytest.mark.parametrize("name", MASKS)
def test_filling_the_trace_gives_the_mask_back(name):
    mask = MASKS[name]
    np.testing.assert_array_equal(fill(outlines(mask), *mask.shape), mask)


def test_filling_the_trace_gives_noise_back():
    rng = np.random.default_rng(0)
    masks = [blob(rng) for _ in range(40)] + [rng.random((20, 31)) < share for share in np.linspace(0.02, 0.98, 40)]
    for mask in masks:
        np.testing.assert_array_equal(fill(outlines(mask), *mask.shape), mask)
        assert sum(part.area for part in trace(mask)) == mask.sum()


def test_outline_of_a_rectangle_is_its_four_corners():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    (part,) = trace(mask)
    assert {tuple(vertex) for vertex in part.outline.tolist()} == {(3, 2), (9, 2), (9, 5), (3, 5)}
    assert len(part.outline) == 4 and part.holes == () and part.area == 18


def test_parts_holes_and_islands():
    """A large square with a hole, an island in the hole, and a small square elsewhere."""
    mask = np.zeros((30, 40), bool)
    mask[2:22, 2:22] = True
    mask[6:18, 6:18] = False
    mask[10:14, 10:14] = True
    mask[25:28, 30:33] = True
    parts = trace(mask)
    assert [part.area for part in parts] == [20 * 20 - 12 * 12, 16, 9]
    assert [len(part.holes) for part in parts] == [1, 0, 0]
    assert [signed_area(polygon) for polygon in parts[0].polygons] == [400, -144]


def test_pixels_that_touch_at_a_corner_are_one_part():
    mask = np.eye(2, dtype=bool)
    assert len(trace(mask)) == 1


def test_signed_area_is_positive_clockwise_on_screen():
    assert signed_area(np.array([(0, 0), (2, 0), (2, 3), (0, 3)])) == 6
    assert signed_area(np.array([(0, 0), (0, 3), (2, 3), (2, 0)])) == -6


def test_vertices_that_do_not_turn_are_dropped():
    polygon = np.array([(0, 0), (2, 0), (2, 0), (5, 0), (9, 0), (5, 0), (5, 5), (0, 5)])
    kept = without_straight_vertices(polygon)
    assert {tuple(vertex) for vertex in kept.tolist()} == {(0, 0), (5, 0), (5, 5), (0, 5)}
    assert len(without_straight_vertices(np.array([(0, 0), (3, 3), (6, 6), (3, 3)]))) == 0


def iou(polygons: list[np.ndarray], mask: np.ndarray) -> float:
    drawn = fill(polygons, *mask.shape)
    return float((drawn & mask).sum() / (drawn | mask).sum())


@pytest.mark.parametrize(
    ("name", "most_vertices", "least_iou"),
    [("disc", 16, 0.985), ("ellipse", 16, 0.98), ("crescent", 19, 0.97), ("bar", 8, 0.98)],
)
def test_simplified_outlines_are_short_and_true(name, most_vertices, least_iou):
    (part,) = trace(MASKS[name])
    polygon = simplify(part.outline, 0.7)
    assert len(polygon) <= most_vertices
    assert iou([polygon], MASKS[name]) >= least_iou


def test_an_upright_rectangle_keeps_its_corners_exactly():
    (part,) = trace(np.pad(np.ones((11, 17), bool), 5))
    polygon = simplify(part.outline, 0.5)
    assert {tuple(vertex) for vertex in polygon.round(6).tolist()} == {(5, 5), (22, 5), (22, 16), (5, 16)}


def test_fitted_lines_recover_a_slanted_square():
    """A square drawn at 30 degrees: every fitted vertex lies within .35 px of a true corner."""
    angle = np.deg2rad(30 + 45 + 90 * np.arange(4))
    true = 48 + 30 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    (part,) = trace(fill([true], 96, 96))
    polygon = simplify(part.outline, 1.0)
    distance = np.hypot(*np.moveaxis(polygon[:, None] - true[None], -1, 0))
    assert len(polygon) == 4
    assert distance.min(axis=1).max() < 0.35


def test_fitting_beats_chords():
    mask = ellipse(96, 48, 48, 30, 30)
    (part,) = trace(mask)
    stairs = Stairs.of_outline(part.outline)
    chosen = stairs.choose(1.0)
    assert iou([stairs.fit(chosen)], mask) > iou([stairs.points[chosen] / 2], mask) + 0.015


def test_tolerance_grows_monotonically_coarser_and_zero_keeps_everything():
    (part,) = trace(ellipse(96, 48, 48, 40, 25))
    counts = [len(simplify(part.outline, tolerance)) for tolerance in (0.3, 0.7, 1.5, 3.0)]
    assert counts == sorted(counts, reverse=True) and counts[-1] < counts[0] / 2
    np.testing.assert_array_equal(simplify(part.outline, 0), part.outline)


def test_fill_samples_pixel_centres():
    rng = np.random.default_rng(1)
    for _ in range(20):
        triangle = rng.uniform(-3, 15, (3, 2))
        columns, rows = np.meshgrid(np.arange(12) + 0.5, np.arange(10) + 0.5)
        inside = shapely.contains_xy(shapely.Polygon(triangle), columns, rows)
        np.testing.assert_array_equal(fill([triangle], 10, 12), inside)


def test_fill_counts_opposite_directions_as_holes():
    square = np.array([(1, 1), (9, 1), (9, 9), (1, 9)], float)
    hole = np.array([(3, 3), (7, 3), (7, 7), (3, 7)], float)
    assert fill([square, hole[::-1]], 10, 10).sum() == 64 - 16
    assert fill([square, hole], 10, 10).sum() == 64
    assert not fill([], 4, 4).any()


def test_fill_agrees_with_opencv_away_from_edges():
    rng = np.random.default_rng(2)
    polygon = rng.uniform(5, 90, (12, 2)).astype(np.int32)
    ours = fill([polygon.astype(float)], 96, 96).astype(np.uint8)
    theirs = cv2.fillPoly(np.zeros((96, 96), np.uint8), [polygon], 1)
    edge = cv2.polylines(np.zeros((96, 96), np.uint8), [polygon], True, 1, thickness=3) > 0
    winding_one = ours[~edge] >= theirs[~edge]
    assert winding_one.all()
