"""Annotations that are known to be coarse or wrong; what dropping is worth, by hand and with the shipped refiner."""

import numpy as np
import pytest
from echo_refiners import EchoRefiner, upper_half

from moonseg_jax import cli
from moonseg_jax.baselines import mask_iou
from moonseg_jax.clean.agreement import Measurement
from moonseg_jax.clean.ensemble import Ensemble, EnsembleSettings, find_members, load_ensemble
from moonseg_jax.clean.faults import FAULTS, LARGEST_IOU, MERGED, OTHER_OBJECT, PART_MISSING, SHIFTED, annotated_objects
from moonseg_jax.clean.measure import JudgedObject, dropping, figures_of, judge_objects
from moonseg_jax.clean.policy_answers import mean_iou
from moonseg_jax.clean.rule import Rule
from moonseg_jax.clean.starts import starts_of
from moonseg_jax.errors import UserError
from moonseg_jax.shipped import shipped

RULE = Rule(min_agreement=0.75, min_stay=0.7, min_phrase_iou=0.5)


def test_wrong_annotations_are_wrong_in_the_way_they_say_and_the_others_are_coarse():
    objects = annotated_objects(60, 3, 0.5)
    for one in objects:
        overlap = mask_iou(one.instance.annotation, one.truth)
        covered = np.count_nonzero(one.instance.annotation & one.truth) / np.count_nonzero(one.truth)
        beyond = np.count_nonzero(one.instance.annotation & ~one.truth) / np.count_nonzero(one.truth)
        match one.fault:
            case None:
                assert overlap > 0.3, "a filled hole and a coarse outline of a thin bar at worst"
            case kind if kind == OTHER_OBJECT:
                assert overlap < 0.4
            case kind if kind == MERGED:
                assert covered > 0.7 and beyond > 0.2
            case kind if kind == PART_MISSING:
                assert covered < 0.9
    by_kind = [sum(one.fault == kind for one in objects) for kind in FAULTS]
    assert 0.4 * len(objects) < sum(by_kind) < 0.6 * len(objects) and max(by_kind) - min(by_kind) <= 0.2 * sum(by_kind)
    right = [mask_iou(one.instance.annotation, one.truth) for one in objects if one.fault is None]
    shifted = [mask_iou(one.instance.annotation, one.truth) for one in objects if one.fault == SHIFTED]
    assert 0.75 < np.mean(right) < 0.9 and np.mean(shifted) < 0.5


def test_the_same_seed_gives_the_same_annotations_and_another_one_others():
    first, again, other = (annotated_objects(3, seed, 0.25) for seed in (1, 1, 2))
    assert [one.instance.annotation.tobytes() for one in first] == [one.instance.annotation.tobytes() for one in again]
    assert not np.array_equal(first[0].instance.image, other[0].instance.image)


def judged(agreement, stay, fault, annotated, drawn):
    found = Measurement(
        consensus=np.ones((2, 2), bool), agreement=agreement, least_agreement=agreement, stay=stay, score=None,
        unrefined=(),
    )  # fmt: skip
    return JudgedObject(
        found=found, fault=fault, annotated_iou=annotated, annotated_boundary=annotated / 2, drawn_iou=drawn,
        drawn_boundary=drawn / 2,
    )  # fmt: skip


def test_figures_are_those_worked_by_hand():
    found = figures_of(
        [
            judged(0.9, 0.9, None, 0.8, 0.9),
            judged(0.9, 0.75, None, 0.6, 0.8),
            judged(0.9, 0.9, OTHER_OBJECT, 0.0, 0.1),
            judged(0.7, 0.9, MERGED, 0.4, 0.5),
            judged(0.9, 0.2, SHIFTED, 0.3, 0.85),
            judged(0.5, 0.9, None, 0.7, 0.6),
        ],
        RULE,
    )
    assert (found.objects, found.kept) == (6, 3)
    assert found.annotated_miou == pytest.approx(2.8 / 6) and found.annotated_boundary == pytest.approx(1.4 / 6)
    assert found.before_miou == pytest.approx(1.4 / 3) and found.kept_miou == pytest.approx(1.8 / 3)
    assert found.kept_boundary == pytest.approx(0.9 / 3) and found.improved == 1.0
    # Gains .1, .2, .1: mean .1333, deviation .0577, over the root of 3.
    assert found.gain_miou == pytest.approx((0.13333, 0.03333), abs=1e-4)
    wrong, masks = found.wrong_annotations, found.wrong_masks
    assert (wrong.wrong, wrong.dropped, wrong.precision, wrong.recall) == (
        3,
        3,
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
    )
    # Masks below .75: the other object, the merged one and the last; two of them are dropped.
    assert (masks.wrong, masks.precision, masks.recall) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.recall_by_fault == {OTHER_OBJECT: 0.0, SHIFTED: 1.0, MERGED: 1.0, PART_MISSING: None}


def test_nothing_dropped_has_no_precision():
    found = dropping(np.zeros(3, bool), np.array([True, False, False]))
    assert (found.precision, found.recall) == (None, 0.0)


def test_echoed_annotations_gain_nothing():
    ensemble = Ensemble([EchoRefiner(), EchoRefiner()], EnsembleSettings(starts=1, jitter=0.0, iterations=None, seed=0))
    found = figures_of(judge_objects(ensemble, None, annotated_objects(5, 0, 0.25)), RULE)
    assert found.kept == found.objects and found.gain_miou == (0.0, 0.0)
    assert (found.kept_miou, found.kept_boundary) == (found.before_miou, found.before_boundary)


def test_the_first_start_is_the_annotation_and_the_others_are_near_it():
    annotation = annotated_objects(1, 0, 0.0)[0].instance.annotation
    starts = starts_of(annotation, 4, 0.05, (0, 1))
    np.testing.assert_array_equal(starts[0][0], annotation)
    overlaps = [mask_iou(mask, annotation) for mask, _ in starts[1:]]
    assert all(0.6 < overlap < 1 for overlap in overlaps), overlaps
    assert len({mask.tobytes() for mask, _ in starts}) == 4 and len({tuple(box) for _, box in starts}) == 4
    np.testing.assert_array_equal(starts[2][0], starts_of(annotation, 3, 0.05, (0, 1))[2][0])


def test_an_empty_annotation_starts_empty():
    assert not any(mask.any() for mask, _ in starts_of(np.zeros((8, 9), bool), 3, 0.05, (0,)))


def test_masks_of_members_come_refiner_by_refiner_and_start_by_start():
    objects = annotated_objects(2, 0, 0.0)
    settings = EnsembleSettings(starts=2, jitter=0.05, iterations=None, seed=0)
    ensemble = Ensemble([EchoRefiner(), EchoRefiner(upper_half)], settings)
    for one, masks in zip(objects, ensemble.masks_of([one.instance for one in objects]), strict=True):
        starts = starts_of(one.instance.annotation, 2, 0.05, (0, one.instance.scene, one.instance.position))
        wanted = [starts[0][0], starts[1][0], upper_half(starts[0][0]), upper_half(starts[1][0])]
        assert [mask.mask.tobytes() for mask in masks] == [mask.tobytes() for mask in wanted]


def test_answers_count_as_a_mean_and_none_without_any():
    mask = np.array([[True, True, False, False]])
    assert mean_iou(mask, [mask, ~mask]) == 0.5 and mean_iou(mask, []) is None


def test_one_member_and_checkpoints_named_twice_are_refused():
    with pytest.raises(UserError, match="cannot agree with anybody"):
        Ensemble([EchoRefiner()], EnsembleSettings(starts=1, jitter=0.0, iterations=None, seed=0))
    with pytest.raises(UserError, match="names a folder twice"):
        find_members([shipped("refiner"), shipped("refiner")], None)
    member = find_members([shipped("refiner")], None)[0]
    assert (member.refiner, member.policy) == (shipped("refiner"), shipped("rl"))


@pytest.mark.slow
def test_kept_masks_of_the_shipped_refiner_are_closer_to_the_truth_than_their_annotations():
    settings = EnsembleSettings(starts=3, jitter=0.05, iterations=2, seed=0)
    ensemble = load_ensemble(find_members([], None), settings, 16)
    found = figures_of(judge_objects(ensemble, None, annotated_objects(24, 0, 0.25)), RULE)
    assert 0.4 * found.objects < found.kept < 0.9 * found.objects
    assert found.gain_miou[0] > 0.01 and found.gain_boundary[0] > 0.03
    assert found.wrong_annotations.precision > 1.3 * found.wrong_annotations.wrong / found.objects
    assert found.recall_by_fault[SHIFTED] > 0.6


def test_measuring_refuses_shares_that_are_none(capsys):
    assert cli.main(["data", "measure-cleaning", "--wrong", "2"]) == 2
    assert "wrong 2.0" in capsys.readouterr().err
    assert LARGEST_IOU == 0.75
