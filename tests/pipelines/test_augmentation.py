"""Changed scenes: phrases stay true, masks stay on their objects, and the same numbers give the same scene."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from test_shapes_phrases import certain_meanings

from data_pipelines.augmentation.augment import augment
from data_pipelines.augmentation.crop import cropped
from data_pipelines.augmentation.flip import flipped
from data_pipelines.augmentation.jitter import jittered
from data_pipelines.augmentation.sides import mirrored_phrase
from data_pipelines.loader import scene_batches
from data_pipelines.shapes.scene import draw_scene, generate_scene
from moonseg_jax.augmentation_config import Augmentation
from moonseg_jax.config import ConfigError
from moonseg_jax.types import Example, Scene


def scene_of(phrases, image=None, masks=None, references=()):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8) if image is None else image
    encoded = [None if mask is None else coco_mask.encode(np.asfortranarray(mask)) for mask in masks or [None]]
    encoded *= len(phrases) // len(encoded)
    return Scene(
        examples=tuple(
            Example(
                image=image, phrase=phrase, target=target, image_id=1, example_id=k, references=references
            )
            for k, (phrase, target) in enumerate(zip(phrases, encoded))
        )
    )  # fmt: skip


@pytest.mark.parametrize("level", [2, 3])
def test_phrases_of_mirrored_scenes_mean_their_targets_and_nothing_else(level):
    """Read by the independent reader of phrases, from mirrored masks."""
    changed = 0
    for index in range(150):
        scene = draw_scene(11, index, level, "train")
        mirrored = [dataclasses.replace(item, mask=item.mask[:, ::-1]) for item in scene.objects]
        for said in scene.expressions:
            phrase = mirrored_phrase(said.phrase)
            changed += phrase != said.phrase
            assert certain_meanings(phrase, mirrored) == [said.target], said.phrase
    assert changed > 40


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("Left dog", "Right dog"),
        ("the RIGHTMOST cup", "the LEFTMOST cup"),
        ("second from left, red", "second from right, red"),
        ("man's right-hand side", "man's left-hand side"),
        ("left of the right chair", "right of the left chair"),
        ("top-left window", "top-right window"),
        ("bright leftover pizza", "bright leftover pizza"),
        ("woman in red", "woman in red"),
        ("right", "left"),
    ],
)
def test_sides_are_exchanged_in_their_spelling(phrase, expected):
    assert mirrored_phrase(phrase) == expected
    assert mirrored_phrase(expected) == phrase


@pytest.mark.parametrize(
    "phrase",
    [
        "player 7", "sign saying stop", "car on the r", "cup right next to him", "the one who left", "5 o'clock",
        "east window", 'the "LEFT" label', "turning clockwise", "left-leaning tower", "driver's side door",
    ],
)  # fmt: skip
def test_phrases_whose_mirror_image_is_not_known_are_left_alone(phrase):
    assert mirrored_phrase(phrase) is None
    assert flipped(scene_of(["a dog", phrase])) is None


@given(st.text(alphabet="abLRleftrigh- '7", max_size=40))
@settings(max_examples=200, deadline=None)
def test_mirroring_twice_is_saying_the_same(phrase):
    once = mirrored_phrase(phrase)
    if once is not None:
        twice = mirrored_phrase(once)
        assert twice is not None and twice.lower() == phrase.lower()


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_mirroring_a_scene_twice_gives_it_back(seed):
    scene = generate_scene(3, seed, 2, "train")
    once = flipped(scene)
    twice = flipped(once)
    for example, mirror, again in zip(scene.examples, once.examples, twice.examples, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(mirror.target), coco_mask.decode(example.target)[:, ::-1])
        np.testing.assert_array_equal(mirror.image, example.image[:, ::-1])
        assert (again.phrase, again.target["counts"]) == (example.phrase, example.target["counts"])
        np.testing.assert_array_equal(again.image, example.image)


def test_references_are_mirrored_and_keep_a_crop_away():
    scene = scene_of(["this"], references=((0.25, 0.5), (0.4, 0.5, 0.2, 0.1)))
    assert flipped(scene).examples[0].references == ((0.75, 0.5), (0.6, 0.5, 0.2, 0.1))
    assert cropped(scene, 0.5, np.random.default_rng(0)) is None


def test_crops_hold_every_target_whole_and_cut_pixels_and_masks_alike():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (40, 60, 3), np.uint8)
    first, second = np.zeros((2, 40, 60), np.uint8)
    first[5:12, 8:20] = second[15:25, 30:45] = 1
    marked = image.copy()
    marked[first > 0], marked[second > 0] = 255, 0
    scene = scene_of(["white", "black"], marked, [first, second])
    sizes = set()
    for seed in range(40):
        part = cropped(scene, 0.5, np.random.default_rng(seed))
        if part is None:
            continue
        height, width = part.examples[0].image.shape[:2]
        sizes.add((height, width))
        assert height >= 20 and width >= 37
        for example, value, area in zip(part.examples, (255, 0), (first.sum(), second.sum())):
            mask = coco_mask.decode(example.target) > 0
            assert mask.shape == (height, width) and mask.sum() == area
            assert (example.image[mask] == value).all()
    assert len(sizes) > 20


@pytest.mark.parametrize("phrase", ["left dog", "biggest cup", "cup next to a plate", "whole cake", "man on a bike"])
def test_phrases_that_speak_of_more_than_the_target_keep_the_whole_image(phrase):
    assert cropped(scene_of(["dog", phrase]), 0.5, np.random.default_rng(0)) is None


def test_jitter_changes_light_and_keeps_greys_grey_and_hues_near():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4], image[4:] = (200, 60, 60), (90, 90, 90)
    found = [jittered(scene_of(["x"], image), 0.25, np.random.default_rng(k)).examples[0].image for k in range(20)]
    assert len({one.tobytes() for one in found}) == 20
    for one in found:
        grey = one[6, 0].astype(int)
        assert grey.max() - grey.min() <= 1
        red = one[0, 0].astype(int)
        assert red[0] > red[1] + 40 and abs(red[1] - red[2]) <= 2


def test_a_scene_is_changed_by_its_place_in_the_stream_alone():
    scenes = [generate_scene(0, index, 2, "train") for index in range(6)]
    asked = Augmentation(flip=0.5, crop=0.5, jitter=0.5)

    def taken(shards):
        def collate(batch, seed):
            return [(one.image_id, one.phrase, one.image.tobytes()) for scene in batch for one in scene.examples]

        streams = [
            scene_batches(
                scenes, collate, images_per_batch=4 // shards, phrases_per_image=2, seed=5, shard_index=k,
                shard_count=shards, transform=lambda scene, generator: augment(asked, scene, generator),
            )
            for k in range(shards)
        ]  # fmt: skip
        return [sorted(itertools.chain(*(next(stream) for stream in streams))) for _ in range(4)]

    one = taken(1)
    assert one == taken(2) == taken(4)
    assert len({line for batch in one for line in batch}) > 20


def test_a_stream_goes_on_with_another_number_of_shards():
    scenes = [generate_scene(0, index, 1, "train", 48) for index in range(7)]

    def streams(shards):
        return [
            scene_batches(
                scenes, lambda batch, seed: [one.examples[0].image_id for one in batch], images_per_batch=12 // shards,
                seed=2, shard_index=k, shard_count=shards,
            )
            for k in range(shards)
        ]  # fmt: skip

    def together(some, count):
        return [sorted(itertools.chain(*(next(stream) for stream in some))) for _ in range(count)]

    scenes = scenes * 2
    expected = together(streams(1), 6)
    two = streams(2)
    assert together(two, 3) == expected[:3]
    three = streams(3)
    for stream in three:
        stream.set_state(two[0].get_state())
    assert together(three, 3) == expected[3:]


def test_numbers_that_are_no_shares_are_refused():
    for wrong in ({"flip": 1.5}, {"crop": -0.1}, {"least_side": 0.0}, {"strength": 1.0}):
        with pytest.raises(ConfigError, match=f"augmentation.{next(iter(wrong))} is"):
            Augmentation(**wrong)
