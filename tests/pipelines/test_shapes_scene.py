"""Scenes are a function of their key alone, and hard enough for the figures of the project."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data_pipelines.shapes.scene import draw_scene, generate_scene
from moonseg_jax.baselines import BaselineSample, measure_baselines
from moonseg_jax.errors import UserError


def fingerprint(scene):
    return [(one.image.tobytes(), one.phrase, one.target["counts"], one.example_id, one.tags) for one in scene.examples]


def test_scenes_do_not_depend_on_the_order_they_are_asked_for():
    forwards = [fingerprint(generate_scene(1, index, 2, "train")) for index in range(6)]
    backwards = [fingerprint(generate_scene(1, index, 2, "train")) for index in reversed(range(6))]
    assert forwards == backwards[::-1]


def test_seed_split_and_index_each_give_another_scene():
    images = {
        generate_scene(seed, index, 2, split).examples[0].image.tobytes()
        for seed in (0, 1)
        for index in (0, 1)
        for split in ("train", "val", "val_unseen")
    }
    assert len(images) == 12


def test_examples_carry_ids_image_and_decodable_targets():
    scene, drawn = generate_scene(2, 5, 2, "val"), draw_scene(2, 5, 2, "val")
    assert [one.example_id for one in scene.examples] == [40 + j for j in range(len(scene.examples))]
    assert {one.image_id for one in scene.examples} == {5}
    for one, said in zip(scene.examples, drawn.expressions):
        assert one.image.shape == (96, 96, 3) and one.image.dtype == np.uint8
        np.testing.assert_array_equal(coco_mask.decode(one.target), drawn.objects[said.target].mask)


def test_the_size_of_the_image_scales_the_objects():
    share = {
        size: np.mean(
            [item.mask.mean() for index in range(40) for item in draw_scene(3, index, 2, "val", size).objects]
        )
        for size in (64, 96, 192)
    }
    assert share[64] == pytest.approx(share[96], rel=0.15) and share[192] == pytest.approx(share[96], rel=0.15)


def test_every_target_can_be_seen():
    areas = [item.mask.sum() for index in range(100) for item in draw_scene(4, index, 2, "val").objects]
    assert min(areas) >= 90 and 300 < np.median(areas) < 700


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 5, "train"), "no level 5"),
        ((0, 0, 2, "test"), "no split 'test'"),
        ((-1, 0, 2, "train"), "negative"),
        ((0, 0, 2, "train", 20), "48..512"),
    ],
)
def test_what_does_not_exist_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        draw_scene(*arguments)


def test_level_two_is_hard_enough():
    samples = []
    generator = np.random.default_rng(0)
    for index in range(100):
        scene = draw_scene(5, index, 2, "val")
        target = scene.expressions[0].target
        truth = scene.objects[target].mask
        # An outline that is off by a few pixels: the overlap of the truth with itself, shifted and thickened.
        moved = np.roll(truth, generator.integers(-2, 3, 2), axis=(0, 1))
        coarse = moved | np.roll(moved, 2, axis=0) | np.roll(moved, 2, axis=1)
        others = tuple(item.mask for k, item in enumerate(scene.objects) if k != target)
        samples.append(BaselineSample(image=scene.image, ground_truth=truth, others=others, coarse=coarse))
    found = measure_baselines(samples)
    assert found.other_object == 0 and found.any_object <= 0.4
    assert 0.4 <= found.filled_box <= 0.6
    assert 0.5 <= found.coarse <= 0.75 and found.flood_fill_gain <= 0.05
