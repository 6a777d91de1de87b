"""Pairs made of ground truths."""

import dataclasses

import numpy as np
import pytest
from listed_scenes import ListedScenes
from tiny_models import scenes

from moonseg_jax.batch import true_mask
from moonseg_jax.errors import UserError
from moonseg_jax.pairs import crop_mask
from moonseg_jax.synthetic_pairs import SyntheticPairs, drawn_examples, jittered_box, true_box
from moonseg_jax.types import Scene

SIDE = 32


def pairs(seed=0, jitter=0.1, source=None) -> SyntheticPairs:
    return SyntheticPairs(drawn_examples(source or ListedScenes(), seed), 12, SIDE, seed, jitter)


def test_a_pair_is_a_function_of_seed_and_number():
    first, again, other = pairs(), pairs(), pairs(seed=1)
    for index in (7, 0, 7):
        for one, two in zip(first[index], again[index], strict=True):
            np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(first[7], other[7], strict=True))


def test_coarse_masks_are_of_the_object_and_not_right():
    ious = np.array([pairs().provenance(index).iou for index in range(12)])
    assert ious.min() > 0.3 and np.median(ious) < 0.95
    assert {pairs().provenance(index).source for index in range(12)} == {"synthetic"}
    assert pairs().provenance(0).policy_version == -1


def test_without_jitter_the_crop_is_the_true_box_and_a_quarter():
    made = pairs(jitter=0.0)
    example = drawn_examples(ListedScenes(), 0)(3)
    mask = true_mask(example)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    x0, x1, y0, y1 = columns[0] / width, (columns[-1] + 1) / width, rows[0] / height, (rows[-1] + 1) / height
    grown = [x0 - (x1 - x0) / 4, y0 - (y1 - y0) / 4, x1 + (x1 - x0) / 4, y1 + (y1 - y0) / 4]
    crop = made.provenance(3).crop
    np.testing.assert_allclose(crop, np.clip(grown, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(made[3][2], crop_mask(mask, crop, SIDE))
    assert made.provenance(3).example_id == example.example_id


def test_jitter_moves_and_stretches_by_at_most_its_share():
    box = np.array([0.5, 0.4, 0.2, 0.1])
    drawn = np.array([jittered_box(box, 0.1, np.random.default_rng(seed)) for seed in range(200)])
    change = np.abs(drawn - box) / box[[2, 3, 2, 3]]
    assert change.max() <= 0.1 + 1e-9 and (change.max(axis=0) > 0.09).all()


def test_the_box_of_a_mask_counts_whole_pixels():
    mask = np.zeros((10, 20), bool)
    mask[2:4, 5:15] = True
    np.testing.assert_allclose(true_box(mask), [0.5, 0.3, 0.5, 0.2])
    assert true_box(np.zeros((10, 20), bool)).tolist() == [0.5, 0.5, 1.0, 1.0]


def test_all_scenes_come_once_before_one_comes_twice_and_phrases_without_target_never():
    without = tuple(
        Scene(examples=tuple(dataclasses.replace(example, target=None) for example in scene.examples))
        for scene in scenes(2)
    )
    one_target = Scene(examples=(without[0].examples[0], scenes(2)[0].examples[1]))
    answered = [drawn_examples(ListedScenes(4), 5)(index).image_id for index in range(8)]
    assert sorted(answered[:4]) == sorted(answered[4:]) == sorted({scene.examples[0].image_id for scene in scenes(4)})
    draw = drawn_examples(ListedScenes(given=(one_target, without[1])), 0)
    assert {draw(index).example_id for index in range(6)} == {scenes(2)[0].examples[1].example_id}
    with pytest.raises(UserError, match="'train' has no phrase with a target"):
        drawn_examples(ListedScenes(given=without), 0)(0)
