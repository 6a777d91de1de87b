"""Cubics fitted to outlines: how far they stray, how few numbers they need, and what they draw."""

from __future__ import annotations

import numpy as np
import pytest
from mask_samples import blob, ellipse, smooth_shapes

from moonseg_jax.errors import UserError
from moonseg_jax.paths.cubic_fit import distance_to_cubics, fit_cubics
from moonseg_jax.paths.engine.path_data import flatten
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.simplify import simplify
from moonseg_jax.paths.trace import signed_area, trace

SQUARE = np.array([(2.0, 3), (30, 3), (30, 20), (2, 20)])


def outlines() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    masks = [*smooth_shapes().values(), *(blob(rng) for _ in range(5))]
    simplified = [simplify(q, 0.5) for mask in masks for part in trace(mask)[:2] for q in part.polygons[:2]]
    return [polygon for polygon in simplified if len(polygon) >= 3]


def points_along(polygon: np.ndarray, each: int = 6) -> np.ndarray:
    t = (np.arange(each) / each)[:, None, None]
    return ((1 - t) * polygon + t * np.roll(polygon, -1, axis=0)).reshape(-1, 2)


@pytest.mark.parametrize("tolerance", [0.3, 1.0])
def test_curves_stay_within_the_tolerance_of_their_outline(tolerance):
    found = outlines()
    assert len(found) > 15
    for outline in found:
        cubics = fit_cubics(outline, tolerance)
        # Between two samples, a quarter of a pixel away at most, the curve can stray no farther than this.
        assert distance_to_cubics(points_along(outline), cubics) < tolerance + 0.05
        np.testing.assert_array_equal(cubics[:, 3], np.roll(cubics[:, 0], -1, axis=0))


def test_curves_have_no_excursions_either():
    """Every point of the curve is near the outline, not only the other way round."""
    for outline in outlines()[::3]:
        curve = flatten(fit_cubics(outline, 0.5), 0.05)
        lines = np.stack([outline + (np.roll(outline, -1, axis=0) - outline) * k / 3 for k in range(4)], axis=1)
        assert distance_to_cubics(curve, lines) < 1.0


def test_round_shapes_need_fewer_numbers_than_their_polygon_and_draw_the_same():
    for rx, ry in ((40, 40), (40, 25), (20, 31)):
        mask = ellipse(96, 48, 48, rx, ry)
        polygon = simplify(trace(mask)[0].outline, 0.3)
        cubics = fit_cubics(polygon, 0.5)
        assert 6 * len(cubics) + 2 < 2 * len(polygon)
        drawn = fill([flatten(cubics, 0.01)], 96, 96)
        assert (drawn & mask).sum() / (drawn | mask).sum() > 0.98


def test_a_rectangle_stays_one():
    cubics = fit_cubics(SQUARE)
    assert len(cubics) == 4
    assert {tuple(point) for point in cubics[:, 0].tolist()} == {tuple(point) for point in SQUARE.tolist()}
    assert signed_area(flatten(cubics, 0.1)) == pytest.approx(28 * 17)


def test_the_direction_is_kept():
    assert signed_area(flatten(fit_cubics(SQUARE[::-1]), 0.1)) == pytest.approx(-28 * 17)


@pytest.mark.parametrize(
    ("outline", "tolerance", "message"),
    [
        (SQUARE[:2], 0.5, "three or more finite"),
        (np.repeat(SQUARE[:1], 5, axis=0), 0.5, "different vertices"),
        (np.where(SQUARE == 30, np.nan, SQUARE), 0.5, "finite"),
        (SQUARE, 0.0, "tolerance 0.0"),
        (SQUARE, np.nan, "tolerance nan"),
    ],
)
def test_what_cannot_be_fitted_is_refused(outline, tolerance, message):
    with pytest.raises(UserError, match=message):
        fit_cubics(outline, tolerance)
