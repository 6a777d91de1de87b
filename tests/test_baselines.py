"""Baselines against masks worked out by hand."""

import math

import numpy as np
import pytest

from moonseg_jax.baselines import (
    BaselineSample,
    filled_box,
    flood_fill,
    mask_iou,
    measure_baselines,
    strongest_tolerance,
)

L_SHAPE = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], bool)


def test_iou_of_masks_and_of_two_empty_ones():
    column = np.array([[1, 0, 0, 0]] * 4, bool)
    assert mask_iou(L_SHAPE, column) == 3 / 6
    assert mask_iou(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) == 1


def test_the_box_of_an_l_shape_holds_nine_pixels():
    box = filled_box(L_SHAPE)
    assert box.sum() == 9 and box[:3, :3].all()
    assert mask_iou(box, L_SHAPE) == 5 / 9
    assert not filled_box(np.zeros((4, 4), bool)).any()


def test_a_grown_box_is_cut_at_the_border():
    mask = np.zeros((10, 10), bool)
    mask[4:8, 0:4] = True
    grown = filled_box(mask, 0.25)
    assert grown.sum() == 6 * 5 and grown[3:9, 0:5].all()


def test_flood_fill_recovers_a_flat_object_and_stays_out_of_other_regions_of_its_colour():
    image = np.full((40, 40, 3), 60, np.uint8)
    image[10:20, 10:20] = (200, 30, 30)
    image[10:20, 22:24] = (200, 30, 30)
    coarse = np.zeros((40, 40), bool)
    coarse[11:21, 12:20] = True
    expected = np.zeros((40, 40), bool)
    expected[10:20, 10:20] = True
    np.testing.assert_array_equal(flood_fill(image, coarse), expected)


def test_flood_fill_leaks_only_to_the_border_of_the_grown_box():
    image = np.full((40, 40, 3), 60, np.uint8)
    coarse = np.zeros((40, 40), bool)
    coarse[16:24, 16:24] = True
    leaked = flood_fill(image, coarse)
    assert leaked.sum() == 12 * 12 and leaked[14:26, 14:26].all()


def test_flood_fill_of_an_empty_outline_is_empty():
    assert not flood_fill(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool)).any()


def sample(others=()):
    image = np.full((4, 4, 3), 50, np.uint8)
    image[L_SHAPE] = 240
    return BaselineSample(image=image, ground_truth=L_SHAPE, others=others, coarse=L_SHAPE[::-1])


def test_figures_are_means_over_samples():
    other = np.zeros((4, 4), bool)
    other[0, 3] = True
    found = measure_baselines([sample(), sample(others=(other, other, other))])
    assert found.n == 2
    assert found.other_object == 0 and found.any_object == 0.25
    assert found.filled_box == pytest.approx(5 / 9)
    assert found.coarse == pytest.approx(2 / 8)
    assert found.flood_fill_gain == pytest.approx(found.flood_fill - 2 / 8)


def test_without_other_objects_there_is_no_such_figure():
    assert math.isnan(measure_baselines([sample()]).other_object)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        measure_baselines([])


def test_the_strongest_tolerance_is_found():
    image = np.full((20, 20, 3), 100, np.uint8)
    image[5:15, 5:15] = 140
    image[5:15, 10:15] = 150
    truth = np.zeros((20, 20), bool)
    truth[5:15, 5:15] = True
    one = BaselineSample(image=image, ground_truth=truth, others=(), coarse=truth)
    assert strongest_tolerance([one], (5.0, 30.0, 200.0)) == 30.0
