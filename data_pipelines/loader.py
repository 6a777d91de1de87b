"""Batches of scenes for training: shuffled, sharded, endless, resumable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import grain
import numpy as np

from moonseg_jax.errors import UserError
from moonseg_jax.types import Scene

OF_SCENES = 1
"""Keeps what is drawn for scenes apart from what is drawn for batches."""

Batch = TypeVar("Batch")
Item = TypeVar("Item", covariant=True)


class RandomAccess(Protocol[Item]):
    """What a loader reads from; `source.SceneSource` is one, a list of scenes another."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, index: int) -> Item:
        """One item."""


def scene_batches(
    source: RandomAccess[Any],
    collate: Callable[[Sequence[Any], int], Batch],
    *,
    images_per_batch: int,
    phrases_per_image: int | None = None,
    seed: int,
    shuffle: bool = True,
    epochs: int | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    threads: int = 2,
    transform: Callable[[Any, np.random.Generator], Any] | None = None,
) -> grain.DatasetIterator[Batch]:
    """Iterates over collated batches; batch t depends on (source, seed, t, shard) and on nothing else.

    The shards' batches t are together one batch of all, which does not depend on the number of shards: a state saved
    by some restores on another number of them, as long as the batch of all stays as large, and no scene is lost or
    read twice. What is drawn for a scene (its phrases, its transformation) does not depend on it either.

    Args:
      source: scenes.
      collate: pure function of (scenes, random seed) that makes the batch; runs in the reading threads.
      images_per_batch: scenes per batch of this shard.
      phrases_per_image: keep that many phrases of each scene, drawn at random with `shuffle`, the first ones
        without; scenes that have fewer keep what they have. None keeps all.
      seed: of the order of scenes, the choice of phrases and the seeds handed to `collate`.
      shuffle: a fresh order in every epoch.
      epochs: None for an endless stream of full batches; a number to stop, the last batch perhaps smaller.
      shard_index: which share of the scenes to read, 0..shard_count-1; shares are disjoint within an epoch.
      shard_count: number of shares.
      threads: reading threads, in which images are decoded and changed; 0 reads in the caller's thread.
      transform: pure function of (scene, random generator) that changes a scene, once its phrases are chosen.

    Returns:
      An iterator with `get_state` and `set_state`; a restored one goes on with the very next batch.

    Raises:
      UserError: if a share of the source cannot fill a single batch of an endless stream.
    """
    if epochs is None and len(source) // shard_count < images_per_batch:
        raise UserError(
            f"{len(source)} scenes in {shard_count} shard(s) cannot fill a batch of {images_per_batch} "
            "images; build more scenes or make the batch smaller"
        )

    def finish(step: int, scenes: Sequence[Any]) -> Batch:
        numbers = np.random.SeedSequence((seed, step * shard_count + shard_index))
        return collate(scenes, int(numbers.generate_state(1)[0]))

    def prepare(position: int, scene: Any) -> Any:
        place = position * shard_count + shard_index
        generator = np.random.default_rng((OF_SCENES, seed, place))
        if phrases_per_image is not None:
            scene = _with_phrases(scene, phrases_per_image, generator if shuffle else None)
        return scene if transform is None else transform(scene, generator)

    dataset = grain.MapDataset.source(source).seed(seed)
    if shuffle:
        dataset = dataset.shuffle()
    # Shares are taken from the endless stream, not from an epoch: so batches of all are parts of that stream.
    dataset = dataset.repeat(epochs)[shard_index::shard_count].map_with_index(prepare)
    batches = dataset.batch(images_per_batch, drop_remainder=epochs is None, batch_fn=list)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(batches.map_with_index(finish).to_iter_dataset(options))


def _with_phrases(scene: Scene, count: int, generator: np.random.Generator | None) -> Scene:
    """The scene with at most `count` of its examples: the first ones, or random ones in their old order."""
    examples = scene.examples
    if len(examples) <= count:
        return scene
    kept = range(count) if generator is None else np.sort(generator.permutation(len(examples))[:count])
    return dataclasses.replace(scene, examples=tuple(examples[k] for k in kept))
