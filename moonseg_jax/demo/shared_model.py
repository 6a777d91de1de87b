"""One model for all visitors: they take turns piece by piece, so that nobody waits for a whole answer of another."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from moonseg_jax.demo.visit import Visit
from moonseg_jax.errors import UserError
from moonseg_jax.predict import Segmenter
from moonseg_jax.streaming import Finished, StreamEvent


class SharedModel:
    """A segmenter behind a lock."""

    def __init__(self, segmenter: Segmenter, weights: str, note: str):
        """Nothing is compiled yet.

        Args:
          segmenter: used through this object alone.
          weights: which they are, in words for the page.
          note: what the visitor must know of them; may be empty.
        """
        self.weights, self.note = weights, note
        self._segmenter, self._lock, self.is_warm = segmenter, threading.Lock(), False

    def answer(self, visit: Visit, phrase: str) -> Iterator[StreamEvent]:
        """The events of one answer. The lock is free between two of them, also where the rest is never asked for.

        Args:
          visit: has a photo; its clicks go into the prompt.
          phrase: what to segment.

        Raises:
          UserError: there is no photo or no phrase, or the vocabulary cannot say it.
        """
        if visit.photo is None:
            raise UserError("there is no photo yet: drop one, or choose an example")
        if not phrase.strip():
            raise UserError("say what to segment, for example: the small red star")
        with self._lock:
            events = self._segmenter.segment(visit.photo, phrase.strip(), visit.references, stream=True)
        while True:
            with self._lock:
                event = next(events, None)
            if event is None:
                return
            self.is_warm |= isinstance(event, Finished)
            yield event
