"""Synthetic coarse masks."""

import cv2
import numpy as np
import pytest

from moonseg_jax.corruption import CORRUPTIONS, corrupt, dilate, drop, erode, move, polygonise


def disc(radius=20, size=96):
    y, x = np.mgrid[:size, :size] - size // 2
    return (x**2 + y**2 <= radius**2).astype(np.uint8)


def iou(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def test_corrupted_masks_are_coarse_but_of_the_same_object():
    truth = disc().astype(bool)
    ious = np.array([iou(corrupt(truth, np.random.default_rng(seed)), truth) for seed in range(200)])
    assert ious.min() > 0.4
    assert 0.7 < ious.mean() < 0.92
    assert np.mean(ious < 0.99) > 0.95


def test_the_generator_fixes_the_result():
    truth = disc().astype(bool)
    first, again, other = (corrupt(truth, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("pixels", [0, 1])
def test_nothing_and_single_pixels_survive(pixels):
    mask = np.zeros((20, 20), bool)
    mask[7, 7] = bool(pixels)
    for seed in range(30):
        assert corrupt(mask, np.random.default_rng(seed)).any() == bool(pixels)


def test_column_major_masks_are_accepted():
    truth = disc().astype(bool)
    for seed in range(20):
        np.testing.assert_array_equal(
            corrupt(np.asfortranarray(truth), np.random.default_rng(seed)),
            corrupt(truth, np.random.default_rng(seed)),
        )


def test_what_each_corruption_does():
    mask, scale = disc(), 35.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert (erode(mask, scale, rng) <= mask).all() and (dilate(mask, scale, rng) >= mask).all()
        moved = np.argwhere(move(mask, scale, rng)).mean(axis=0) - np.argwhere(mask).mean(axis=0)
        assert np.abs(moved).max() <= 0.15 * scale + 1
        bitten = drop(mask, scale, rng)
        assert (bitten <= mask).all() and 0.7 * mask.sum() < bitten.sum() < mask.sum()
        outline, _ = cv2.findContours(
            polygonise(mask, scale, rng), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )  # fmt: skip
        assert len(cv2.approxPolyDP(outline[0], 0.9, closed=True)) < 16


def test_one_part_of_several_is_dropped_and_holes_stay_under_polygons():
    two = np.zeros((40, 80), np.uint8)
    two[10:30, 10:30] = two[10:30, 50:70] = 1
    assert drop(two, 28.0, np.random.default_rng(0)).sum() == 400
    ring = disc(30) - disc(15)
    hole = polygonise(ring, 46.0, np.random.default_rng(0))
    assert hole[48, 48] == 0 and hole[48, 48 + 22] == 1
    assert len(CORRUPTIONS) == 5
