"""Pairs with their pixels: random access for the loader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from data_pipelines.source import SceneSource
from moonseg_jax.batch import true_mask
from moonseg_jax.errors import UserError
from moonseg_jax.pairs import PairBuffer, crop_image, crop_mask

PairPixels = tuple[UInt8[np.ndarray, "S S 3"], Bool[np.ndarray, "S S"], Bool[np.ndarray, "S S"]]


class PairSource:
    """`source[i]` is pair i as (image crop, coarse mask, ground truth), all in the crop's frame at S x S."""

    def __init__(self, buffer: PairBuffer, scenes: SceneSource):
        """Finds the scene of every pair.

        Raises:
          UserError: pairs of another data set, or none at all.
        """
        self._buffer, self._scenes = buffer, scenes
        if not len(buffer):
            raise UserError("there are no pairs to learn from: no rollout overlapped its object; train RL longer")
        self._places = scenes.places(set(buffer.example_ids().tolist()))
        missing = set(buffer.example_ids().tolist()) - self._places.keys()
        if missing:
            raise UserError(
                f"{len(missing)} pairs answer examples that are not in this data set (such as {min(missing)}): "
                "name the data set the RL stage was run on"
            )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._buffer)

    def __getitem__(self, index: int) -> PairPixels:
        """Image crop, coarse mask and ground truth of one pair."""
        example_id, rectangle, coarse = self._buffer.pair(index)
        scene, number = self._places[example_id]
        example = self._scenes[scene].examples[number]
        side = self._buffer.side
        return (
            crop_image(example.image, rectangle, side),
            coarse,
            crop_mask(true_mask(example), rectangle, side),
        )


def stack_pairs(pairs: Sequence[PairPixels], seed: int) -> PairPixels:
    """A batch: images, coarse masks and ground truths, each stacked."""
    images, coarse, truth = zip(*pairs)
    return np.stack(images), np.stack(coarse), np.stack(truth)
