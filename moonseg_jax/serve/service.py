"""Requests in, events out: admission, the queue and the model's thread, without HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from moonseg_jax.errors import UserError
from moonseg_jax.predict import Segmenter
from moonseg_jax.serve.admission import Admission
from moonseg_jax.serve.jobs import Job, JobQueue
from moonseg_jax.serve.problem import Problem
from moonseg_jax.serve.request import parse_request
from moonseg_jax.serve.settings import ServeSettings
from moonseg_jax.serve.worker import ModelWorker
from moonseg_jax.spatial_refs import prompt_references


class Service:
    """One model and those who wait for it."""

    def __init__(
        self, segmenter: Segmenter, settings: ServeSettings, *, warm_up: bool = True,
        say: Callable[[str], None] = lambda text: None,
    ):  # fmt: skip
        """Not started.

        Args:
          segmenter: used by the service alone from `start` on.
          settings: limits.
          warm_up: compile everything before the first request is answered.
          say: told of replies and of what went wrong.
        """
        self.settings, self.say = settings, say
        self.admission = Admission(settings.queue)
        self._vocabulary = segmenter.policy.vocabulary
        self._jobs = JobQueue()
        self._worker = ModelWorker(segmenter, self._jobs, warm_up=warm_up, say=say)
        self._is_stopping = False

    def start(self) -> None:
        """Starts the model's thread."""
        self._worker.start()

    def stop(self) -> int:
        """Takes no more requests, answers those in hand, and ends the model's thread.

        Returns:
          Requests that were not answered within their time.
        """
        self._is_stopping = True
        left = self.admission.close(self.settings.read_seconds + self.settings.answer_seconds)
        self._jobs.close()
        self._worker.join(self.settings.answer_seconds)
        return left

    @property
    def state(self) -> Literal["ok", "starting", "stopping", "failed"]:
        """`ok` where a request would be answered at once or after those before it."""
        if self._is_stopping:
            return "stopping"
        if not self._worker.is_alive:
            return "failed"
        return "ok" if self._worker.is_ready.is_set() else "starting"

    def ask(self, body: bytes) -> Job:
        """Checks a request and queues it for the model.

        Args:
          body: JSON.

        Raises:
          Problem: 400 or 413 for a bad request, also for a phrase that the vocabulary cannot say; 503 where the
            service is stopping.
        """
        deadline = time.monotonic() + self.settings.answer_seconds
        request = parse_request(body, max_pixels=self.settings.max_pixels)
        try:
            self._vocabulary.prompt(request.phrase, prompt_references(request.references))
        except UserError as error:
            raise Problem(400, str(error)) from error
        job = Job(request, deadline)
        self._jobs.put(job)
        return job
