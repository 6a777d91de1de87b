"""A few verdicts out of many, for the contact sheet: every one has the same chance, and memory holds a few."""

from __future__ import annotations

import numpy as np

from moonseg_jax.clean.verdicts import Verdict

MOST = 24
"""Verdicts that are kept."""


class SampleOfVerdicts:
    """A uniform sample of a stream (reservoir sampling; Vitter 1985, Algorithm R)."""

    def __init__(self, most: int = MOST):
        """Begins a sample of at most `most` verdicts; the same stream gives the same sample."""
        self._most, self._seen = most, 0
        self._rng = np.random.default_rng(0)
        self._held: list[tuple[int, Verdict]] = []

    def add(self, verdict: Verdict) -> None:
        """Looks at the next verdict."""
        if len(self._held) < self._most:
            self._held.append((self._seen, verdict))
        else:
            place = int(self._rng.integers(self._seen + 1))
            if place < self._most:
                self._held[place] = (self._seen, verdict)
        self._seen += 1

    def verdicts(self) -> list[Verdict]:
        """The sample, in the order of the stream."""
        return [verdict for _, verdict in sorted(self._held, key=lambda pair: pair[0])]
