"""What members say together, against pycocotools and numbers worked by hand; the rule's reasons in their order."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from moonseg_jax.clean.agreement import Measurement, majority, measure_members, pairwise_iou, without_holes
from moonseg_jax.clean.rule import DISAGREE, EMPTY, LEFT, OTHER, UNREFINED, Rule, fault_of
from moonseg_jax.errors import UserError
from moonseg_jax.refine import Refined
from moonseg_jax.status import EMPTY_CROP, REFINED


def columns(first, last):
    """A mask of 4 x 10 pixels: the columns `first` to `last` - 1."""
    mask = np.zeros((4, 10), bool)
    mask[:, first:last] = True
    return mask


def member(mask, score=0.5, status=REFINED):
    return Refined(mask=mask, status=status, score=score)


def test_iou_of_pairs_is_that_of_pycocotools():
    masks = np.random.default_rng(3).random((5, 30, 40)) < 0.6
    masks[4] = False
    encoded = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    table = coco_mask.iou(encoded, encoded, [0] * 5)
    np.testing.assert_allclose(pairwise_iou(masks), table[np.triu_indices(5, 1)], atol=1e-12)


def test_two_empty_masks_agree_and_one_mask_cannot():
    assert pairwise_iou(np.zeros((2, 3, 3), bool)).tolist() == [1.0]
    with pytest.raises(ValueError, match="at least two"):
        pairwise_iou(np.zeros((1, 3, 3), bool))


def test_a_tie_of_votes_is_background():
    assert majority(np.stack([columns(0, 4), columns(2, 6)])).tolist() == columns(2, 4).tolist()
    assert majority(np.stack([columns(0, 4), columns(2, 6), columns(3, 8)])).tolist() == columns(2, 6).tolist()


def test_members_are_measured_against_each_other_and_the_annotation():
    found = measure_members(
        columns(0, 5), [member(columns(0, 4), 0.9), member(columns(0, 4), 0.6), member(columns(0, 8), 0.3)]
    )
    # Pairs: 4/4, 4/8, 4/8; the majority is columns 0 to 3, the annotation has one more.
    assert found.agreement == pytest.approx(2 / 3)
    assert (found.least_agreement, found.stay) == (0.5, 0.8)
    assert found.score == pytest.approx(0.6) and found.unrefined == ()


def test_members_that_could_not_refine_are_named_and_do_not_score():
    found = measure_members(
        columns(0, 2), [member(columns(0, 2), 0.9), member(columns(0, 2), float("nan"), EMPTY_CROP)]
    )
    assert found.unrefined == (EMPTY_CROP,) and found.score == 0.9


def test_an_annotation_that_fills_a_hole_is_not_left():
    ring = np.zeros((9, 9), bool)
    ring[1:8, 1:8] = True
    whole = ring.copy()
    ring[3:6, 3:6] = False
    apart = np.zeros((9, 9), bool)
    apart[:, ::4] = True
    np.testing.assert_array_equal(without_holes(ring), whole)
    np.testing.assert_array_equal(without_holes(apart), apart)
    assert measure_members(whole, [member(ring), member(ring)]).stay == 1.0


def measurement(agreement=0.9, stay=0.9, unrefined=(), phrase_iou=None, consensus=None):
    return Measurement(
        consensus=columns(0, 2) if consensus is None else consensus, agreement=agreement, least_agreement=agreement,
        stay=stay, score=None, unrefined=unrefined, phrase_iou=phrase_iou,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (measurement(), None),
        (measurement(agreement=0.8, stay=0.6, phrase_iou=0.5), None),
        (measurement(agreement=0.79, stay=0.0), DISAGREE),
        (measurement(stay=0.59, phrase_iou=0.0), LEFT),
        (measurement(phrase_iou=0.49), OTHER),
        (measurement(consensus=columns(0, 0), agreement=0.0), EMPTY),
        (measurement(unrefined=(EMPTY_CROP,), agreement=0.0), UNREFINED),
    ],
    ids=["kept", "at the thresholds", "disagree", "left", "other", "empty", "unrefined"],
)
def test_the_first_threshold_that_is_missed_is_the_reason(found, reason):
    assert fault_of(found, Rule(min_agreement=0.8, min_stay=0.6, min_phrase_iou=0.5)) == reason


def test_thresholds_are_shares():
    with pytest.raises(UserError, match=r"--min-stay is an IoU between 0 and 1, got 60"):
        Rule(min_agreement=0.8, min_stay=60, min_phrase_iou=0.5)
