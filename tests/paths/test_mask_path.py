"""Masks to placed paths and back: parts, holes, budgets and the limits of masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_samples import blob, corner_cases, smooth_shapes

from moonseg_jax.errors import UserError
from moonseg_jax.paths.draw import draw_mask
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.mask_path import path_of_mask
from moonseg_jax.paths.placed_path import PlacedPath, commands_of_text
from moonseg_jax.paths.trace import signed_area

CORNERS = corner_cases()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("rule", ["nonzero", "evenodd"])
def test_masks_at_the_limits_come_back_exactly_at_tolerance_zero(name, rule):
    mask = CORNERS[name]
    traced = path_of_mask(mask, tolerance=0, max_subpaths=256)
    np.testing.assert_array_equal(draw_mask(traced.path, *mask.shape, rule), mask)
    assert (traced.iou, traced.left_out, traced.lost, traced.filled) == (1.0, 0, 0, 0)


def test_a_one_pixel_mask_is_a_square_at_its_place():
    traced = path_of_mask(CORNERS["one pixel"], tolerance=0.5, max_subpaths=1)
    assert traced.path.box == pytest.approx((11.5 / 30, 7.5 / 20, 1 / 30, 1 / 20))
    assert {tuple(point) for point in traced.path.polygons(20, 30)[0].round(9)} == {
        (11, 7), (12, 7), (12, 8), (11, 8),
    }  # fmt: skip


def test_thin_and_small_outlines_keep_their_corners():
    """Corners of pixels taken for stairs would turn a row of pixels into a lens of half its area."""
    mask = CORNERS["row"]
    assert path_of_mask(mask, tolerance=0.5, max_subpaths=9).iou == 1.0


def test_an_empty_mask_is_an_empty_path_that_draws_nothing():
    traced = path_of_mask(np.zeros((5, 7), bool), tolerance=0.5, max_subpaths=1)
    assert traced.path == PlacedPath(box=(0.0,) * 4, commands=(), numbers=()) and traced.parts == 0
    assert not draw_mask(traced.path, 5, 7).any()


def test_a_mask_that_touches_every_border_comes_back_whole():
    mask = np.ones((40, 60), bool)
    mask[10:30, 20:40] = False
    traced = path_of_mask(mask, tolerance=0.5, max_subpaths=9)
    assert (traced.parts, traced.holes, traced.vertices) == (1, 1, 8)
    assert traced.path.box == pytest.approx((0.5, 0.5, 1, 1))
    np.testing.assert_array_equal(draw_mask(traced.path, 40, 60), mask)


@pytest.mark.parametrize("name", smooth_shapes())
def test_smooth_shapes_are_drawn_well(name):
    mask = smooth_shapes()[name]
    traced = path_of_mask(mask, tolerance=0.5, max_subpaths=9)
    assert traced.iou >= 0.975 and traced.vertices <= 40
    assert iou(draw_mask(traced.path, 96, 96), mask) == pytest.approx(traced.iou, abs=0.01)


def test_directions_give_the_same_mask_by_nonzero_and_evenodd():
    rng = np.random.default_rng(5)
    for _ in range(3):
        mask = blob(rng, 40)
        path = path_of_mask(mask, tolerance=0, max_subpaths=256).path
        drawn = [draw_mask(path, 40, 40, rule) for rule in ("nonzero", "evenodd")]
        np.testing.assert_array_equal(*drawn)
    ring = path_of_mask(smooth_shapes()["ring"], tolerance=0.5, max_subpaths=9).path
    outer, hole = (signed_area(polygon) for polygon in ring.polygons(96, 96))
    assert outer > 0 > hole


def test_union_fills_holes_in():
    path = path_of_mask(CORNERS["touches every border"], tolerance=0, max_subpaths=9).path
    assert draw_mask(path, 20, 30, "union").all()


def test_beyond_the_budget_the_largest_are_kept_and_the_loss_is_told():
    mask = np.zeros((60, 90), bool)
    mask[5:35, 5:35] = True
    mask[10:12, 10:12] = mask[20:26, 20:26] = False
    mask[40:50, 40:50] = mask[40:43, 60:63] = True
    traced = path_of_mask(mask, tolerance=0.5, max_subpaths=3)
    assert (traced.parts, traced.holes, traced.left_out) == (2, 1, 2)
    assert (traced.lost, traced.filled) == (9, 4)
    drawn = draw_mask(traced.path, 60, 90)
    assert (mask & ~drawn).sum() == 9 and (drawn & ~mask).sum() == 4
    assert traced.iou == pytest.approx((mask.sum() - 9) / (mask.sum() + 4))


def test_parts_that_would_vanish_are_kept():
    """At 40 px both squares lie within the tolerance of a point."""
    mask = np.zeros((60, 90), bool)
    mask[5:35, 5:35] = mask[40:42, 60:62] = True
    traced = path_of_mask(mask, tolerance=40, max_subpaths=9)
    assert traced.parts == 2 and traced.iou > 0.9


def test_a_path_of_endless_vertices_is_refused(monkeypatch):
    monkeypatch.setattr("moonseg_jax.paths.mask_path.MAX_NUMBERS", 50)
    with pytest.raises(UserError, match="more than 50 numbers; use a larger --tolerance"):
        path_of_mask(CORNERS["checkers"], tolerance=0, max_subpaths=256)


def test_tiles_fit_together(monkeypatch):
    """A path larger than several tiles and the image is drawn as in one piece."""
    commands, numbers = commands_of_text(
        "M -301 -197 L 1303 113 L 907 1201 L 483 307 L 23 901 Z M 203 101 l 301 0 7 303z"
    )
    path = PlacedPath(box=(0.5, 0.5, 1, 1), commands=commands, numbers=numbers)
    whole = {rule: draw_mask(path, 150, 200, rule) for rule in ("nonzero", "evenodd", "union")}
    monkeypatch.setattr("moonseg_jax.paths.draw.TILE", 64)
    for rule, mask in whole.items():
        np.testing.assert_array_equal(draw_mask(path, 150, 200, rule), mask)
    disagreement = whole["nonzero"] != fill(path.polygons(150, 200), 150, 200)
    assert disagreement.mean() < 0.002 and whole["nonzero"].mean() > 0.3


@settings(max_examples=500, deadline=None)
@given(
    st.integers(1, 14), st.integers(1, 14), st.binary(min_size=25, max_size=25), st.floats(0, 20), st.integers(1, 12)
)  # fmt: skip
def test_any_mask_has_a_path_of_finite_numbers_within_its_budget(height, width, bits, tolerance, budget):
    mask = np.unpackbits(np.frombuffer(bits, np.uint8))[: height * width].reshape(height, width) > 0
    traced = path_of_mask(mask, tolerance=tolerance, max_subpaths=budget)
    assert traced.parts + traced.holes <= budget and 0 <= traced.iou <= 1
    assert traced.parts > 0 or not mask.any()
    assert all(0 <= value <= 960 for numbers in traced.path.numbers for value in numbers)
    for polygon in traced.path.polygons(height, width):
        assert abs(signed_area(polygon)) > 0
    if tolerance == 0 and not traced.left_out:
        assert traced.iou == 1.0


def test_curves_take_fewer_numbers_and_stay_close():
    rows, cols = np.mgrid[:160, :200]
    ring = (np.hypot(rows - 70, cols - 90) < 60) & (np.hypot(rows - 70, cols - 90) > 25)
    lines, curves = (path_of_mask(ring, tolerance=0.5, max_subpaths=9, curves=curves) for curves in (False, True))
    assert set(curves.path.commands) == {"M", "C", "Z"} and (curves.parts, curves.holes) == (1, 1)
    assert sum(map(len, curves.path.numbers)) < sum(map(len, lines.path.numbers))
    assert curves.iou > 0.985
    np.testing.assert_allclose(iou(draw_mask(curves.path, *ring.shape), ring), curves.iou, atol=0.01)


def test_curves_need_a_tolerance():
    with pytest.raises(UserError, match="tolerance"):
        path_of_mask(CORNERS["one pixel"], tolerance=0, max_subpaths=1, curves=True)
