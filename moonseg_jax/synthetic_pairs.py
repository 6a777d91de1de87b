"""Pairs without a policy: corrupted ground truths in crops around jittered boxes, the rival of rollouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from data_pipelines.source import SceneSource
from moonseg_jax.batch import true_mask
from moonseg_jax.corruption import corrupt
from moonseg_jax.errors import UserError
from moonseg_jax.pair_source import PairPixels, cut_example
from moonseg_jax.pairs import Provenance, crop_rectangle
from moonseg_jax.types import Example

EXAMPLE, CROP, MASK = range(3)
"""What of a pair is drawn: each from a stream of random numbers of its own."""


class SyntheticPairs:
    """`source[i]` is pair i as (image crop, coarse mask, ground truth): a function of the seed and i, in any epoch."""

    def __init__(self, example_of: Callable[[int], Example], count: int, side: int, seed: int, jitter: float):
        """Makes nothing yet: pairs are made as they are read.

        Args:
          example_of: the example that pair i answers; `drawn_examples` gives one.
          count: number of pairs.
          side: S, of image crops and masks.
          seed: of jitter and corruption.
          jitter: see `jittered_box`.
        """
        self.side, self._count = side, count
        self._example_of, self._seed, self._jitter = example_of, seed, jitter

    def __len__(self) -> int:
        """Number of pairs."""
        return self._count

    def __getitem__(self, index: int) -> PairPixels:
        """Image crop, corrupted mask and ground truth of one pair."""
        example = self._example_of(index)
        image, truth = cut_example(example, self._crop(example, index), self.side)
        return image, corrupt(truth, np.random.default_rng((self._seed, index, MASK))), truth

    def provenance(self, index: int) -> Provenance:
        """Where one pair comes from."""
        example = self._example_of(index)
        _, coarse, truth = self[index]
        union = np.count_nonzero(coarse | truth)
        iou = np.count_nonzero(coarse & truth) / union if union else 1.0
        return Provenance("synthetic", example.example_id, self._crop(example, index), iou, -1)

    def crop_numbers(self) -> Int[np.ndarray, " N"]:
        """Every pair has a crop of its own."""
        return np.arange(self._count)

    def description(self) -> str:
        """How many."""
        return f"{len(self)} synthetic"

    def _crop(self, example: Example, index: int) -> Float[np.ndarray, " 4"]:
        rng = np.random.default_rng((self._seed, index, CROP))
        boxes: Any = jittered_box(true_box(true_mask(example)), self._jitter, rng)[None]
        return np.asarray(crop_rectangle(boxes))[0]


def drawn_examples(scenes: SceneSource, seed: int) -> Callable[[int], Example]:
    """Examples by number: all scenes once, in a drawn order, before one comes twice; of each a phrase with target.

    Raises:
      UserError: by the function, where no phrase has a target.
    """
    order = np.random.default_rng(seed).permutation(len(scenes))

    def example_of(index: int) -> Example:
        rng = np.random.default_rng((seed, index, EXAMPLE))
        for offset in range(len(scenes)):
            examples = scenes[int(order[(index + offset) % len(scenes)])].examples
            with_target = [example for example in examples if true_mask(example).any()]
            if with_target:
                return with_target[rng.integers(len(with_target))]
        raise UserError(f"split {scenes.split!r} has no phrase with a target: there is nothing to make pairs of")

    return example_of


def true_box(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, " 4"]:
    """cx, cy, w, h of the smallest box around a mask, in units of the image; all of the image for an empty mask."""
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8)) if mask.any() else (0, 0, width, height)
    return np.array([(x + w / 2) / width, (y + h / 2) / height, w / width, h / height])


def jittered_box(box: Float[np.ndarray, " 4"], jitter: float, rng: np.random.Generator) -> Float[np.ndarray, " 4"]:
    """A box as a policy might have put it: moved and stretched, per axis, by up to `jitter` of its width and height."""
    cx, cy, w, h = box
    dx, dy, dw, dh = rng.uniform(-jitter, jitter, 4)
    return np.array([cx + dx * w, cy + dy * h, w * (1 + dw), h * (1 + dh)])
