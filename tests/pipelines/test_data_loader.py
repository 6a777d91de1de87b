"""The loader: every batch is a function of seed, step and shard; nothing is lost on resuming."""

import numpy as np
import pytest

from data_pipelines.loader import scene_batches
from moonseg_jax.errors import UserError
from moonseg_jax.types import Example, Scene

IMAGE = np.zeros((2, 2, 3), np.uint8)


def scene(index, phrases=3):
    return Scene(
        examples=tuple(
            Example(image=IMAGE, phrase="x", target=None, image_id=index, example_id=8 * index + j)
            for j in range(phrases)
        )
    )


SCENES = [scene(index) for index in range(12)]


def ids(scenes, random_seed):
    return tuple(one.example_id for item in scenes for one in item.examples), random_seed


def images(scenes, random_seed):
    return [item.examples[0].image_id for item in scenes]


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_restored_iterator_goes_on_with_the_very_next_batch(threads):
    settings = {"images_per_batch": 5, "phrases_per_image": 2, "seed": 3}
    first = scene_batches(SCENES, ids, threads=threads, **settings)
    take(first, 4)
    state = first.get_state()
    expected = take(first, 6)
    restored = scene_batches(SCENES, ids, threads=2 - threads, **settings)
    restored.set_state(state)
    assert take(restored, 6) == expected


def test_batches_depend_on_the_seed_and_every_step_has_randomness_of_its_own():
    settings = {"images_per_batch": 4, "phrases_per_image": 1}
    first = take(scene_batches(SCENES, ids, seed=3, **settings), 9)
    assert first == take(scene_batches(SCENES, ids, seed=3, **settings), 9)
    assert first != take(scene_batches(SCENES, ids, seed=4, **settings), 9)
    assert len({random_seed for _, random_seed in first}) == 9


def test_an_epoch_holds_every_scene_once_and_the_next_one_another_order():
    epochs = take(scene_batches(SCENES, images, images_per_batch=12, seed=0), 2)
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_shards_are_disjoint_and_together_complete_in_every_epoch():
    shards = [
        take(scene_batches(SCENES, images, images_per_batch=4, seed=1, shard_index=index, shard_count=3), 2)
        for index in range(3)
    ]
    for epoch in range(2):
        assert sorted(image for shard in shards for image in shard[epoch]) == list(range(12))


def test_shards_draw_different_randomness():
    settings = {"images_per_batch": 2, "seed": 1, "shard_count": 2}
    seeds = [
        {random_seed for _, random_seed in take(scene_batches(SCENES, ids, shard_index=k, **settings), 5)}
        for k in range(2)
    ]
    assert not seeds[0] & seeds[1]


def test_without_shuffling_scenes_and_phrases_come_in_order_and_epochs_end():
    batches = list(scene_batches(SCENES, ids, images_per_batch=5, phrases_per_image=2, seed=0, shuffle=False, epochs=1))
    assert [len(examples) for examples, _ in batches] == [10, 10, 4]
    assert [example for examples, _ in batches for example in examples] == [
        8 * index + j for index in range(12) for j in range(2)
    ]


def test_random_phrases_are_distinct_and_vary():
    source = [scene(0, phrases=4)]
    chosen = [
        examples
        for examples, _ in take(scene_batches(source, ids, images_per_batch=1, phrases_per_image=2, seed=0), 60)
    ]
    assert all(first < second for first, second in chosen)
    assert len(set(chosen)) == 6


def test_scenes_with_few_phrases_keep_what_they_have():
    ((examples, _),) = take(
        scene_batches([scene(7, phrases=2)], ids, images_per_batch=1, phrases_per_image=4, seed=0), 1
    )
    assert examples == (56, 57)


def test_too_few_scenes_for_a_batch_are_refused():
    with pytest.raises(UserError, match=r"12 scenes in 4 shard\(s\) cannot fill a batch of 5 images"):
        scene_batches(SCENES, ids, images_per_batch=5, seed=0, shard_count=4)
