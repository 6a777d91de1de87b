"""Pairs with their pixels: random access for the loader."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from data_pipelines.source import SceneSource
from moonseg_jax.batch import true_mask
from moonseg_jax.errors import UserError
from moonseg_jax.pairs import PairBuffer, Provenance, crop_image, crop_mask
from moonseg_jax.types import Example

PairPixels = tuple[UInt8[np.ndarray, "S S 3"], Bool[np.ndarray, "S S"], Bool[np.ndarray, "S S"]]
"""Image crop, coarse mask and ground truth, all in the crop's frame."""


class Pairs(Protocol):
    """What the refiner learns from, whatever made the coarse masks."""

    side: int
    """S, of image crops and masks."""

    def __len__(self) -> int:
        """Number of pairs."""

    def __getitem__(self, index: int) -> PairPixels:
        """Image crop, coarse mask and ground truth of one pair: always the same ones for the same index."""

    def provenance(self, index: int) -> Provenance:
        """Where one pair comes from."""

    def crop_numbers(self) -> Int[np.ndarray, " N"]:
        """Number of every pair's image crop, from 0; pairs of one number share the pixels."""

    def description(self) -> str:
        """How many of what, in a few words."""


class PairSource:
    """Pairs of rollouts: `source[i]` is pair i as (image crop, coarse mask, ground truth), in the crop's frame."""

    def __init__(self, buffer: PairBuffer, scenes: SceneSource):
        """Finds the scene of every pair.

        Raises:
          UserError: pairs of another data set, or none at all.
        """
        self.side = buffer.side
        self._buffer, self._scenes = buffer, scenes
        if not len(buffer):
            raise UserError("there are no pairs to learn from: no rollout overlapped its object; train RL longer")
        self._rows = np.arange(len(buffer))
        self._places = scenes.places(set(buffer.example_ids().tolist()))
        missing = set(buffer.example_ids().tolist()) - self._places.keys()
        if missing:
            raise UserError(
                f"{len(missing)} pairs answer examples that are not in this data set (such as {min(missing)}): "
                "name the data set the RL stage was run on"
            )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._rows)

    def __getitem__(self, index: int) -> PairPixels:
        """Image crop, coarse mask and ground truth of one pair."""
        _, rectangle, coarse = self._buffer.pair(self._rows[index])
        image, truth = cut_example(self.example(index), rectangle, self.side)
        return image, coarse, truth

    def part(self, rows: Int[np.ndarray, " M"]) -> PairSource:
        """Some of the pairs, in the given order."""
        part = copy.copy(self)
        part._rows = self._rows[rows]
        return part

    def example(self, index: int) -> Example:
        """The example that one pair answers."""
        scene, number = self._places[int(self._buffer.example_ids()[self._rows[index]])]
        return self._scenes[scene].examples[number]

    def provenance(self, index: int) -> Provenance:
        """Where one pair comes from."""
        return self._buffer.provenance(self._rows[index])

    def crop_numbers(self) -> Int[np.ndarray, " N"]:
        """Pairs of one image and one rectangle have one number."""
        scenes = [self._places[example_id][0] for example_id in self._buffer.example_ids()[self._rows].tolist()]
        keys = np.concatenate([np.array(scenes, np.float64)[:, None], self._buffer.crops()[self._rows]], axis=1)
        return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)

    def description(self) -> str:
        """How many, and of how many policy versions."""
        versions = {self.provenance(index).policy_version for index in range(len(self))}
        return f"{len(self)} of rollouts of {len(versions)} policy versions"


class JoinedPairs:
    """The pairs of several sources, one after the other."""

    def __init__(self, parts: Sequence[Pairs]):
        """Joins sources of equal side."""
        self.side, self._parts = parts[0].side, parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        """Number of pairs."""
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> PairPixels:
        """Image crop, coarse mask and ground truth of one pair."""
        part, row = self._find(index)
        return part[row]

    def provenance(self, index: int) -> Provenance:
        """Where one pair comes from."""
        part, row = self._find(index)
        return part.provenance(row)

    def crop_numbers(self) -> Int[np.ndarray, " N"]:
        """Sources share no numbers."""
        numbers, start = [], 0
        for part in self._parts:
            numbers.append(part.crop_numbers() + start)
            start = int(numbers[-1].max()) + 1
        return np.concatenate(numbers)

    def description(self) -> str:
        """How many of each source."""
        return " and ".join(part.description() for part in self._parts)

    def _find(self, index: int) -> tuple[Pairs, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[number], index - int(self._starts[number])


def cut_example(
    example: Example, rectangle: Float[np.ndarray, " 4"], side: int
) -> tuple[UInt8[np.ndarray, "S S 3"], Bool[np.ndarray, "S S"]]:
    """Pixels and ground truth of an example in a rectangle (units of the image), at S x S."""
    return crop_image(example.image, rectangle, side), crop_mask(true_mask(example), rectangle, side)


def identity_rows(count: int, share: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Which pairs of a batch get their ground truth for a coarse mask, so that the head learns to leave it alone.

    Args:
      count: N, size of the batch.
      share: expected share; so many of the N, rounded up or down by chance.
      seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    chosen = int(share * count + rng.random())
    rows = np.zeros(count, bool)
    rows[rng.permutation(count)[:chosen]] = True
    return rows


def with_identity(
    coarse: Bool[np.ndarray, "N S S"], truth: Bool[np.ndarray, "N S S"], rows: Bool[np.ndarray, " N"]
) -> Bool[np.ndarray, "N S S"]:
    """Coarse masks, in the given rows replaced by the ground truth."""
    return np.where(rows[:, None, None], truth, coarse)


def stack_pairs(pairs: Sequence[PairPixels], seed: int, identity_share: float = 0.0) -> PairPixels:
    """A batch: images, coarse masks and ground truths, each stacked.

    Args:
      pairs: its pairs.
      seed: of the choice of identity rows.
      identity_share: see `identity_rows`.
    """
    images, coarse, truth = (np.stack(part) for part in zip(*pairs))
    return images, with_identity(coarse, truth, identity_rows(len(pairs), identity_share, seed)), truth
