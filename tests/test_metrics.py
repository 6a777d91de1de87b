"""Mask metrics against numbers worked by hand."""

from __future__ import annotations

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.metrics import (
    MaskMetrics,
    boundary_iou,
    by_object_size,
    intersection_and_union,
    iou,
    relative_radius,
)


def rectangle(x0: int, y0: int, x1: int, y1: int, height: int = 40, width: int = 60) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


EMPTY = np.zeros((40, 60), bool)


def test_intersection_and_union_of_a_batch():
    """10 x 10 against 10 x 10 shifted by 5: 50 of 150 pixels; empty against empty; empty against 100."""
    square = rectangle(0, 0, 10, 10)
    prediction = jnp.asarray([square, EMPTY, EMPTY])
    truth = jnp.asarray([rectangle(5, 0, 15, 10), EMPTY, square])
    intersection, union = jax.jit(intersection_and_union)(prediction, truth)
    assert intersection.tolist() == [50, 0, 0] and union.tolist() == [150, 0, 100]
    assert iou(intersection, union).tolist() == pytest.approx([1 / 3, 1, 0])


def test_boundary_iou_by_hand():
    """Rings two pixels wide of 20 x 20 squares (144 pixels each), shifted by one pixel.

    Columns 10..29 against 11..30. The outlines' rings share, in the first and last two rows, 19 columns each
    (4 x 19), and in the 16 rows between, columns 11 and 29 (one on each side): 76 + 32 = 108; union 180.
    """
    ours, theirs = rectangle(10, 10, 30, 30), rectangle(11, 10, 31, 30)
    assert boundary_iou(ours, theirs, 2) == pytest.approx(108 / 180)


def test_boundary_iou_counts_the_border_of_the_image():
    """A full mask has the image's frame as its boundary: 40 x 60 less 38 x 58 pixels are 196."""
    full, inner = np.ones((40, 60), bool), rectangle(1, 1, 59, 39)
    assert boundary_iou(full, full, 1) == 1.0
    assert boundary_iou(full, inner, 1) == 0.0
    assert boundary_iou(full, rectangle(0, 0, 60, 20), 1) == pytest.approx((60 + 2 * 19) / (196 + 58))


def test_boundary_iou_of_empty_masks():
    square = rectangle(3, 3, 9, 9)
    assert boundary_iou(EMPTY, EMPTY, 2) == 1.0
    assert boundary_iou(EMPTY, square, 2) == 0.0


@pytest.mark.parametrize("radius", [1, 2, 3, 7])
def test_boundary_iou_equals_repeated_erosion(radius):
    rng = np.random.default_rng(radius)

    def boundary(mask):
        padded = np.pad(mask.astype(np.uint8), 1)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=radius)[1:-1, 1:-1]
        return mask & (eroded == 0)

    for _ in range(10):
        noise = cv2.GaussianBlur(rng.normal(size=(2, 50, 70)).transpose(1, 2, 0), (0, 0), 5)
        ours, theirs = noise[..., 0] > 0, noise[..., 0] + 0.3 * noise[..., 1] > 0
        expected = (boundary(ours) & boundary(theirs)).sum() / (boundary(ours) | boundary(theirs)).sum()
        assert boundary_iou(ours, theirs, radius) == pytest.approx(expected)


def test_radius_is_two_percent_of_the_diagonal():
    assert relative_radius(480, 640) == 16
    assert relative_radius(96, 96) == 3
    assert relative_radius(10, 10) == 1


def accumulated() -> MaskMetrics:
    """IoU 1, 1/2, 0 (a failed prediction) and 1 (empty against empty)."""
    metrics = MaskMetrics()
    samples = [
        (rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 10)),
        (rectangle(20, 20, 30, 30), rectangle(20, 20, 40, 30)),
        (EMPTY, rectangle(0, 0, 30, 20)),
        (EMPTY, EMPTY),
    ]
    assert [metrics.add(*sample) for sample in samples] == [1.0, 0.5, 0.0, 1.0]
    return metrics


def test_summary_by_hand():
    summary = accumulated().summary()
    # Boundaries 2 px wide: 64 of 64; 10 x 10 in 20 x 10 with rings of 64 and 104 pixels that share 52; none.
    near = (1 + (20 + 20 + 12) / (64 + 104 - 52) + 0 + 1) / 4
    # 2 % of 72.1 px is one pixel: rings of 36 and 56 pixels that share 10 + 10 + 8.
    relative = (1 + 28 / (36 + 56 - 28) + 0 + 1) / 4
    assert summary == pytest.approx(
        {
            "miou": 2.5 / 4,
            "ciou": (100 + 100) / (100 + 200 + 600),
            "p50": 3 / 4,
            "p60": 2 / 4,
            "p70": 2 / 4,
            "p80": 2 / 4,
            "p90": 2 / 4,
            "biou_2px": near,
            "biou_2pct": relative,
            "n": 4,
        }
    )


def test_merged_parts_equal_the_whole():
    whole, one, two = MaskMetrics(), MaskMetrics(), MaskMetrics()
    rng = np.random.default_rng(0)
    for index in range(6):
        sample = (rng.random((12, 9)) < 0.6, rng.random((12, 9)) < 0.6)
        whole.add(*sample)
        (one if index < 2 else two).add(*sample)
    assert one.merge(two).summary() == pytest.approx(whole.summary())


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        MaskMetrics().summary()
    with pytest.raises(ValueError, match=r"prediction is \(4, 4\), ground truth \(4, 5\)"):
        MaskMetrics().add(np.zeros((4, 4), bool), np.zeros((4, 5), bool))


def test_sizes_are_shares_of_the_image_as_cocos_pixels_are_of_640_by_480():
    """32² and 96² pixels there are a 300th and 3 % of the image; on 60 x 40 that is 8 and 72 pixels."""
    masks = [
        EMPTY,
        rectangle(0, 0, 7, 1),
        rectangle(0, 0, 8, 1),
        rectangle(0, 0, 71, 1, 40, 60) | rectangle(0, 1, 11, 2),
    ]
    masks += [rectangle(0, 0, 12, 6), rectangle(0, 0, 60, 40)]
    found = {name: rows.tolist() for name, rows in jax.jit(by_object_size)(jnp.asarray(masks)).items()}
    assert found == {
        "small": [False, True, False, False, False, False],
        "medium": [False, False, True, True, False, False],
        "large": [False, False, False, False, True, True],
    }
