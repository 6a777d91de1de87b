"""Cleaning of refined masks."""

import os
import pathlib

import numpy as np
import pytest

from moonseg_jax.mask_cleaning import clean_mask


@pytest.mark.parametrize("case", range(5))
def test_cleaning_equals_official(case):
    if "MOONSEG_FIXTURES" not in os.environ:
        pytest.skip("MOONSEG_FIXTURES does not name the folder of official outputs")
    helpers = pathlib.Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3/helpers"
    mask = np.load(helpers / "inputs.npz")[f"mask{case}"].astype(bool)
    expected = np.load(helpers / "expected.npz")[f"clean{case}"].astype(bool)
    np.testing.assert_array_equal(clean_mask(mask), expected)


def square(size: int = 100, start: int = 20, stop: int = 60) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[start:stop, start:stop] = True
    return mask


def test_small_holes_are_filled_and_large_ones_stay():
    mask = square()
    mask[30:33, 30:34] = False  # 12 pixels, below 15
    mask[40:44, 40:44] = False  # 16 pixels
    expected = square()
    expected[40:44, 40:44] = False
    np.testing.assert_array_equal(clean_mask(mask), expected)


def test_specks_are_removed_and_larger_parts_stay():
    mask = square()
    mask[80:83, 80:84] = True
    mask[80:84, 5:9] = True
    expected = square()
    expected[80:84, 5:9] = True
    np.testing.assert_array_equal(clean_mask(mask), expected)


def test_the_largest_speck_survives_alone():
    mask = np.zeros((100, 100), bool)
    mask[10:12, 10:12] = True
    mask[50:53, 50:53] = True
    expected = np.zeros((100, 100), bool)
    expected[50:53, 50:53] = True
    np.testing.assert_array_equal(clean_mask(mask), expected)


@pytest.mark.parametrize("value", [False, True])
def test_uniform_masks_stay(value):
    mask = np.full((30, 40), value)
    np.testing.assert_array_equal(clean_mask(mask), mask)


def test_crack_of_one_pixel_closes():
    mask = square()
    mask[40, 20:60] = False
    np.testing.assert_array_equal(clean_mask(mask), square())


def test_parts_touching_at_a_corner_are_one():
    mask = square()
    mask[60:62, 60:67] = True  # 14 pixels, too few to stay alone
    np.testing.assert_array_equal(clean_mask(mask), mask)
