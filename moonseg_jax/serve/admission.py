"""How many requests are in hand, and the end of it: none is taken any more, and the last one is waited for."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Iterator

from moonseg_jax.serve.problem import Problem


class Admission:
    """Counts requests in hand, and answers by HTTP status."""

    def __init__(self, most: int):
        """Nothing in hand.

        Args:
          most: requests in hand at a time.
        """
        self._most, self._in_hand, self._is_closed = most, 0, False
        self._changed = threading.Condition()
        self._statuses: collections.Counter[int] = collections.Counter()

    @contextlib.contextmanager
    def one_request(self) -> Iterator[None]:
        """A request is in hand inside of this.

        Raises:
          Problem: 429, too many are; 503, none is taken any more.
        """
        with self._changed:
            if self._is_closed:
                raise Problem(503, "The server is stopping")
            if self._in_hand >= self._most:
                raise Problem(429, f"{self._most} requests are in hand, which is the limit; try again in a moment")
            self._in_hand += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_hand -= 1
                self._changed.notify_all()

    def close(self, seconds: float) -> int:
        """Takes no more requests and waits for those in hand.

        Args:
          seconds: longest wait.

        Returns:
          Requests still in hand after that.
        """
        with self._changed:
            self._is_closed = True
            deadline = time.monotonic() + seconds
            while self._in_hand and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._in_hand

    def count(self, status: int) -> None:
        """Counts a reply."""
        with self._changed:
            self._statuses[status] += 1

    def summary(self) -> str:
        """Replies by status: `200: 17, 429: 2`; `none` without any."""
        with self._changed:
            return ", ".join(f"{status}: {number}" for status, number in sorted(self._statuses.items())) or "none"
