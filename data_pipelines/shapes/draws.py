"""Cheap scalar random numbers that depend on their key alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

_BLOCK = 128


class Draws:
    """A stream of random scalars keyed by non-negative integers, such as (seed, split, index).

    Scalars are drawn from a Philox generator in blocks, because one call per number would dominate the cost
    of a scene.
    """

    def __init__(self, *key: int):
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        self._block: list[float] = []

    def unit(self) -> float:
        """A number in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(_BLOCK).tolist()
        return self._block.pop()

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def below(self, count: int) -> int:
        """An integer in 0..count-1."""
        return int(self.unit() * count)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One item, all equally likely."""
        return items[int(self.unit() * len(items))]

    def weighted(self, items: Sequence[Item], weights: Sequence[float]) -> Item:
        """One item, with probability proportional to its weight."""
        remaining = self.unit() * sum(weights)
        for item, weight in zip(items, weights):
            remaining -= weight
            if remaining < 0:
                return item
        return items[-1]
