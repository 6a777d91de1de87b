"""Overlap terms against numbers worked by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.rewards import mask_iou
from moonseg_jax.rewards.overlap import (
    iou_at_least,
    iou_power,
    log_iou,
    mean_over_thresholds,
    soft_dice,
    soft_iou,
)

TRUTH = np.array([[True, True], [False, False]])
COVERAGE = np.array([[1.0, 0.6], [0.4, 0.0]], np.float32)
NOTHING, EMPTY = np.zeros((2, 2), np.float32), np.zeros((2, 2), bool)
SOFT = {"iou": jax.jit(soft_iou), "dice": jax.jit(soft_dice)}


def test_raw_iou_counts_pixels_above_one_half():
    coverage = np.stack([COVERAGE, np.full((2, 2), 0.5), NOTHING, np.ones((2, 2))])
    truth = np.stack([TRUTH, TRUTH, EMPTY, TRUTH])
    assert jax.jit(mask_iou)(coverage, truth).tolist() == [1.0, 0.0, 1.0, 0.5]


def test_soft_overlap_by_hand():
    """Inside the truth lie 1.6 pixels of coverage; coverage or truth fill 2.4; both together sum to 4."""
    assert float(SOFT["iou"](COVERAGE, TRUTH)) == pytest.approx(1.6 / 2.4)
    assert float(SOFT["dice"](COVERAGE, TRUTH)) == pytest.approx(2 * 1.6 / 4.0)
    both = SOFT["iou"](np.stack([COVERAGE, NOTHING]), np.stack([TRUTH, EMPTY]))
    assert both.tolist() == pytest.approx([2 / 3, 1])


@pytest.mark.parametrize("term", SOFT.values(), ids=SOFT)
def test_soft_overlap_of_empty_masks(term):
    assert float(term(NOTHING, EMPTY)) == 1.0
    assert float(term(NOTHING, TRUTH)) == 0.0
    assert float(term(COVERAGE, EMPTY)) == 0.0


def test_soft_overlap_has_the_derivative_of_its_formula_also_at_nothing():
    """d/dc of (sum over truth) / (2 + rest): 1 / 2.4 inside, -1.6 / 2.4^2 outside."""
    found = jax.jit(jax.grad(soft_iou))(COVERAGE, TRUTH)
    np.testing.assert_allclose(found, [[1 / 2.4] * 2, [-1.6 / 2.4**2] * 2], rtol=1e-5)
    assert np.all(np.isfinite(jax.jit(jax.grad(soft_dice))(NOTHING, EMPTY)))


def test_thresholds_are_reached_by_equality():
    iou = jnp.asarray([0.49, 0.5, 11 / 20, 0.74, 0.95, 1.0])
    assert iou_at_least(iou, 0.5).tolist() == [0, 1, 1, 1, 1, 1]
    assert mean_over_thresholds(iou).tolist() == pytest.approx([0, 0.1, 0.2, 0.5, 1, 1])


def test_log_iou_by_hand():
    """With ε = .01: log(1.01 / (1.01 - IoU)) over log(101). IoU .91 leaves .1: log 10.1 / log 101."""
    found = log_iou(jnp.asarray([0.0, 0.91, 1.0]), 0.01)
    assert found.tolist() == pytest.approx([0.0, math.log(10.1) / math.log(101), 1.0], abs=1e-6)


def test_iou_power():
    assert iou_power(jnp.asarray([0.0, 0.5, 1.0]), 3.0).tolist() == pytest.approx([0, 0.125, 1])
