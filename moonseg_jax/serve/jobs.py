"""Requests that wait for the model: first come, first served, those that can share a batch together."""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Iterator

from moonseg_jax.serve.problem import Problem
from moonseg_jax.serve.request import SegmentRequest
from moonseg_jax.streaming import Finished, StreamEvent


class Job:
    """A request on its way through the model: one thread puts events in, another takes them out."""

    def __init__(self, request: SegmentRequest, deadline: float):
        """Nothing has happened yet.

        Args:
          request: what is asked.
          deadline: on the monotonic clock, in seconds; what is not told by then is not waited for.
        """
        self.request, self.deadline = request, deadline
        self.batch = 0
        """Requests answered together with this one, itself included; 0 while it waits."""
        self._given_up = threading.Event()
        self._outbox: queue.SimpleQueue[StreamEvent | Problem] = queue.SimpleQueue()

    @property
    def is_dead(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._given_up.is_set() or time.monotonic() >= self.deadline

    def put(self, news: StreamEvent | Problem) -> None:
        """Tells what is new; `Finished` or a problem is the last."""
        self._outbox.put(news)

    def events(self) -> Iterator[StreamEvent]:
        """What the model tells, as it comes, `Finished` last.

        Raises:
          Problem: what the model could not do; or 504, the deadline has passed.
        """
        try:
            while True:
                try:
                    news = self._outbox.get(timeout=max(0.0, self.deadline - time.monotonic()))
                except queue.Empty:
                    raise Problem(504, "No answer in time; the server is busy, or its limit is too short") from None
                if isinstance(news, Problem):
                    raise news
                yield news
                if isinstance(news, Finished):
                    return
        finally:
            self._given_up.set()


class JobQueue:
    """What waits for the model."""

    def __init__(self) -> None:
        self._jobs: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, job: Job) -> None:
        """Adds a job at the end.

        Raises:
          Problem: 503, the queue is closed.
        """
        with self._changed:
            if self._is_closed:
                raise Problem(503, "The server is stopping")
            self._jobs.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Takes nothing more; what is in it is still to be done."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def take(self, most: int) -> list[Job]:
        """Waits for jobs to be done together: the first one, and those behind it that can go with it.

        Args:
          most: jobs that are given.

        Returns:
          At least one job; none where the queue is closed and empty. Jobs that nobody waits for are left out.
        """
        with self._changed:
            while True:
                alive = [job for job in self._jobs if not job.is_dead]
                if alive or self._is_closed:
                    break
                self._jobs.clear()
                self._changed.wait()
            if alive and alive[0].request.goes_alone:
                taken = alive[:1]
            else:
                taken = [job for job in alive if not job.request.goes_alone][:most]
            self._jobs = collections.deque(job for job in alive if job not in taken)
            for job in taken:
                job.batch = len(taken)
            return taken
