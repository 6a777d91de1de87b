"""Box terms against numbers worked by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.rewards.box import box_closeness, box_iou, box_of_mask, box_until_good

TRUE = np.asarray([0.5, 0.5, 0.4, 0.2], np.float32)
overlap = jax.jit(box_iou)


def test_the_box_of_a_mask_is_tight():
    """Columns 2..5 of 8 and rows 1..1 of 4."""
    mask = np.zeros((4, 8), bool)
    mask[1, 2:6] = True
    assert box_of_mask(mask).tolist() == [0.5, 0.375, 0.5, 0.25]
    assert box_of_mask(np.ones((4, 8), bool)).tolist() == [0.5, 0.5, 1, 1]
    assert box_of_mask(np.zeros((4, 8), bool)).tolist() == [0, 0, 0, 0]


def test_box_iou_by_hand():
    """Moved right by half its width: a third. Twice as high: half. Elsewhere, without area, or negative: nothing."""
    boxes = [TRUE, (0.7, 0.5, 0.4, 0.2), (0.5, 0.5, 0.4, 0.4), (0.1, 0.1, 0.1, 0.1), (0.5, 0.5, 0, 0.2)]
    boxes = np.array([*boxes, (0.5, 0.5, -0.4, 0.2)], np.float32)
    assert overlap(boxes, np.tile(TRUE, (6, 1))).tolist() == pytest.approx([1, 1 / 3, 1 / 2, 0, 0, 0], abs=1e-6)


def test_boxes_without_area_are_alike():
    assert overlap(np.zeros((6, 4), np.float32), np.zeros((6, 4), np.float32)).tolist() == [1.0] * 6


def test_box_closeness_by_hand():
    """The left side .04 too far left and the bottom .02 too low: mean .015 of a reach of .1."""
    boxes = np.array([(0.48, 0.51, 0.44, 0.22), TRUE, (0.1, 0.1, 0.1, 0.1)], np.float32)
    assert box_closeness(boxes, TRUE, 0.1).tolist() == pytest.approx([1 - 0.15, 1, 0], abs=1e-6)


def test_a_good_mask_needs_no_box():
    found = box_until_good(jnp.asarray([0.3, 0.3, 1.0]), jnp.asarray([0.74, 0.75, 0.2]), 0.75)
    assert found.tolist() == pytest.approx([0.3, 1.0, 1.0])
