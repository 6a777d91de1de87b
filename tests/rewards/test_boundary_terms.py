"""Boundary terms against numbers worked by hand, and against the metrics of evaluation."""

from __future__ import annotations

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax import metrics
from moonseg_jax.rewards.boundary import (
    boundary,
    boundary_closeness,
    boundary_iou,
    boundary_radius,
    least_of_iou_and_boundary,
)

closeness = jax.jit(boundary_closeness)
line_of = jax.jit(boundary, static_argnames="radius_px")
iou_at = jax.jit(boundary_iou, static_argnames="radius_px")


def random_masks(seed: int, shape: tuple[int, int] = (40, 40)) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth masks that resemble each other and touch the border."""
    rng = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 4) for _ in range(2)]
    return noise[0] > 0, noise[0] + 0.4 * noise[1] > 0


def square(x0: int, y0: int, x1: int, y1: int, side: int = 40) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize("radius", [1, 2, 11, 30])
def test_boundary_iou_equals_that_of_evaluation(radius):
    for seed in range(8):
        drawn, truth = random_masks(seed)
        expected = metrics.boundary_iou(drawn, truth, radius)
        assert float(iou_at(drawn, truth, radius_px=radius)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("side", [10, 96, 224, 378])
def test_two_percent_is_the_radius_of_evaluation(side):
    assert boundary_radius(0.02, side) == metrics.relative_radius(side, side)


def test_narrow_boundaries_are_at_least_a_pixel_wide():
    assert [boundary_radius(0.005, side) for side in (96, 378)] == [1, 3]


def test_boundary_iou_by_hand():
    """Rings two pixels wide of 20 x 20 squares (144 pixels), one column apart: 108 in both, 180 in either."""
    found = iou_at(square(10, 10, 30, 30), square(11, 10, 31, 30), radius_px=2)
    assert float(found) == pytest.approx(108 / 180)
    assert int(line_of(square(10, 10, 30, 30), radius_px=2).sum()) == 144


def test_boundaries_of_empty_and_full_masks():
    empty, full = np.zeros((40, 40), bool), np.ones((40, 40), bool)
    assert float(iou_at(empty, empty, radius_px=2)) == 1.0
    assert float(iou_at(empty, full, radius_px=2)) == 0.0
    assert float(iou_at(full, full, radius_px=2)) == 1.0
    assert int(line_of(full, radius_px=1).sum()) == 4 * 39


def test_the_worse_of_area_and_outline_counts():
    found = least_of_iou_and_boundary(jnp.asarray([0.8, 0.3]), jnp.asarray([0.5, 0.6]))
    assert found.tolist() == pytest.approx([0.5, 0.3])


def test_closeness_by_hand():
    """Squares of 20 and 16 pixels around the same centre: every pixel of either line lies 2 from the other."""
    outer, inner = square(10, 10, 30, 30), square(12, 12, 28, 28)
    found = [float(closeness(outer, inner, reach_px=reach)) for reach in (2, 3, 8)]
    assert found == pytest.approx([0, 1 - 2 / 3, 1 - 2 / 8], abs=1e-6)


@pytest.mark.parametrize("reach", [3, 8])
def test_closeness_equals_a_distance_transform(reach):
    for seed in range(6):
        drawn, truth = random_masks(seed)
        lines = [np.asarray(line_of(mask, radius_px=1)) for mask in (drawn, truth)]
        distance = [np.minimum(cv2.distanceTransform((~line).astype(np.uint8), cv2.DIST_C, 3), reach) for line in lines]
        expected = 1 - (distance[1][lines[0]].mean() + distance[0][lines[1]].mean()) / (2 * reach)
        assert float(closeness(drawn, truth, reach_px=reach)) == pytest.approx(expected, abs=1e-5)


def test_closeness_of_nothing():
    empty, some = np.zeros((40, 40), bool), square(3, 3, 9, 9)
    assert float(closeness(empty, empty, reach_px=3)) == 1.0
    assert float(closeness(empty, some, reach_px=3)) == 0.0
    assert float(closeness(some, some, reach_px=3)) == 1.0
