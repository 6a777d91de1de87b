"""The thread that owns the model."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence

import numpy as np

from moonseg_jax.errors import UserError
from moonseg_jax.predict import Segmenter
from moonseg_jax.serve.jobs import Job, JobQueue
from moonseg_jax.serve.problem import Problem
from moonseg_jax.streaming import Finished

WARM_UP_PHRASE = "the red star"
"""Shipped and official vocabularies can say it."""


class ModelWorker:
    """Takes jobs from a queue, as many at once as a batch has rows, until the queue is closed and empty."""

    def __init__(self, segmenter: Segmenter, jobs: JobQueue, *, warm_up: bool, say: Callable[[str], None]):
        """Does nothing yet.

        Args:
          segmenter: used by this thread alone from `start` on.
          jobs: what to do.
          warm_up: compile all programs first; else each at its first use.
          say: told what went wrong.
        """
        self._segmenter, self._jobs, self._warm_up, self._say = segmenter, jobs, warm_up, say
        self.is_ready = threading.Event()
        """Set once everything is compiled."""
        self.failure: BaseException | None = None
        """What ended the thread before its time."""
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Waits until the queue is closed and everything in it is done."""
        self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        """Whether jobs will be done."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self._warm_up:
                self._compile()
            self.is_ready.set()
            while jobs := self._jobs.take(self._segmenter.batch):
                self._answer(jobs)
        except BaseException as error:
            self.failure = error
            self._say(f"the model's thread has ended: {_traceback(error)}")
        finally:
            self._jobs.close()
            while jobs := self._jobs.take(self._segmenter.batch):
                _fail(jobs)

    def _compile(self) -> None:
        """Runs every program once: images of one crop and larger ones, one at a time and in batches."""
        crop = self._segmenter.policy.config.vision.crop
        try:
            for side in (crop // 2, 2 * crop):
                blank = np.zeros((side, side, 3), np.uint8)
                self._segmenter.segment(blank, WARM_UP_PHRASE)
                if self._segmenter.batch > 1:
                    self._segmenter.segment([blank] * self._segmenter.batch, WARM_UP_PHRASE)
        except UserError as error:
            self._say(f"not warmed up, the first answers take longer: {error}")

    def _answer(self, jobs: Sequence[Job]) -> None:
        try:
            self._try_to_answer(jobs)
        except Exception as error:
            if len(jobs) > 1:
                # One of them spoils the batch; the others are not to suffer from it.
                for job in jobs:
                    self._answer([job])
            elif isinstance(error, UserError):
                jobs[0].put(Problem(400, str(error)))
            else:
                self._say(f"a request failed: {_traceback(error)}")
                _fail(jobs)
        except BaseException:
            _fail(jobs)
            raise

    def _try_to_answer(self, jobs: Sequence[Job]) -> None:
        first = jobs[0].request
        if first.stream:
            events = self._segmenter.segment(first.image, first.phrase, first.references, stream=True)
            for event in events:
                if jobs[0].is_dead:
                    return
                jobs[0].put(event)
            return
        if len(jobs) == 1:
            answers = [self._segmenter.segment(first.image, first.phrase, first.references)]
        else:
            images = [job.request.image for job in jobs]
            answers = self._segmenter.segment(images, [job.request.phrase for job in jobs])
        for job, answer in zip(jobs, answers, strict=True):
            job.put(Finished(number=0, segmentation=answer))


def _fail(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.put(Problem(500, "Inference failed; the server's log says why"))


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
