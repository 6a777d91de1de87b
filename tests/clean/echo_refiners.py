"""Refiners that need no network: what goes in comes out, or a part of it."""

import numpy as np

from moonseg_jax.refine import Refined
from moonseg_jax.status import EMPTY_COARSE, REFINED


class EchoRefiner:
    """Gives back what it gets, or what a function makes of it; counts what it was asked."""

    def __init__(self, change=lambda mask: mask):
        self.change, self.asked = change, 0

    def refine(self, images, boxes, coarse):
        self.asked += len(coarse)
        return [self._one(mask) for mask in coarse]

    def _one(self, mask):
        if not mask.any():
            return Refined(mask=mask, status=EMPTY_COARSE, score=float("nan"))
        return Refined(mask=self.change(mask), status=REFINED, score=0.9)


def upper_half(mask):
    """The rows of a mask above the middle of its box."""
    rows = np.flatnonzero(mask.any(axis=1))
    kept = mask.copy()
    kept[(rows[0] + rows[-1] + 1) // 2 :] = False
    return kept
