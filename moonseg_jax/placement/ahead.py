"""Sampling ahead: while a step learns, the next one's batch is sampled by the policy from before that step.

The lag is always one step, whoever is faster: what a run computes does not depend on how long anything takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from moonseg_jax.learner.state import LearnerState
from moonseg_jax.loop import InFlight, Loop
from moonseg_jax.placement.experience import Experience, Sample, shared_out_again
from moonseg_jax.placement.supply import Lot, PolicyOf
from moonseg_jax.placement.within_hosts import WithinHosts
from moonseg_jax.placement_config import LAG
from moonseg_jax.sharding import NO_MESH, put_batch
from moonseg_jax.types import PromptBatch, TargetBatch

HostBatch = Any
"""(prompts, targets) of this process, as NumPy."""


def version_for(step: int) -> int:
    """Version of the policy that samples for a step: how many steps it has taken."""
    return max(step - LAG, 0)


class Sampler(Protocol):
    """Those who sample, as the learner sees them."""

    bytes: int
    """Of the weights, as they travel."""

    def begin(self, step: int, params: Any, batch: HostBatch) -> None:
        """Hands weights over, which may change afterwards; sampling goes on meanwhile.

        Args:
          step: that will learn from it.
          params: on the learner's mesh.
          batch: to sample for.
        """

    def finish(self) -> Experience:
        """Waits for what was begun; on the learner's mesh."""

    def close(self) -> None:
        """Lets go of threads."""


class SamplerWithinHosts:
    """Other devices of the same processes, driven by a thread of their own."""

    def __init__(self, exchange: WithinHosts, sampler: Mesh, sample: Sample):
        """Samples nothing yet.

        Args:
          exchange: between the meshes.
          sampler: mesh of the devices that sample.
          sample: see `make_sample`; compiled for that mesh.
        """
        self._exchange, self._mesh, self._sample = exchange, sampler, sample
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampling")
        self._running: Future[Experience] | None = None
        self.bytes = exchange.bytes

    def begin(self, step: int, params: Any, batch: HostBatch) -> None:
        """Copies the weights, then samples beside the caller."""
        with jax.set_mesh(NO_MESH):
            weights = jax.block_until_ready(self._exchange.weights(params))
        self._running = self._thread.submit(self._run, weights, batch, step)

    def _run(self, weights: Any, batch: HostBatch, step: int) -> Experience:
        with jax.set_mesh(self._mesh):
            prompts, targets = put_batch(self._mesh, batch)
            return jax.block_until_ready(self._sample(weights, prompts, targets, step))

    def finish(self) -> Experience:
        """Waits, and hands over."""
        assert self._running is not None
        sampled, self._running = self._running.result(), None
        with jax.set_mesh(NO_MESH):
            return self._exchange.experience(sampled)

    def close(self) -> None:
        """Ends the thread; what it samples is lost."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class SamplingAhead:
    """The supply of a run in which others sample while the learner learns."""

    def __init__(
        self,
        loop: Loop,
        loader: Any,
        read: Callable[[], HostBatch],
        sampler: Sampler,
        policy_of: PolicyOf,
        learner: Mesh,
        learners: int,
    ):
        """Samples nothing yet.

        Args:
          loop: of the run.
          loader: iterator over batches of this process.
          read: takes the next one.
          sampler: those who sample.
          policy_of: state → parameters.
          learner: mesh of the devices that learn.
          learners: processes that learn.
        """
        self._learners = learners
        self._loop, self._loader, self._read, self._sampler = loop, loader, read, sampler
        self._policy_of, self._mesh = policy_of, learner
        self._position = loader.get_state()
        self._placed: tuple[PromptBatch, TargetBatch] | None = None
        self._waiting: InFlight | None = None
        self._dropped = 0
        self._sync_seconds = self._wait_seconds = 0.0

    def resume(self, shapes_of: Callable[[HostBatch], Experience]) -> None:
        """After the loop was restored: takes back what was in flight; of another policy than is due it is dropped.

        Args:
          shapes_of: batch → shapes of its experience on the learner's mesh.
        """
        self._position = self._loader.get_state()
        version = self._loop.version_in_flight
        if version is None or self._loop.first_step >= self._loop.config.steps:
            return
        batch = self._read()
        shapes = shapes_of(batch)
        if version != version_for(self._loop.first_step):
            self._loader.set_state(self._position)
            self._dropped = shapes.rollouts.lengths.shape[0]
            return
        self._placed = put_batch(self._mesh, batch)
        saved = self._loop.restore_in_flight(shapes)
        images = self._learners * batch[0].valid.shape[0]
        arrays = shared_out_again(saved.arrays, images, saved.learners, self._learners)
        self._waiting = InFlight(version, arrays, self._learners)

    def take(self, step: int, state: LearnerState) -> Lot:
        """What was sampled ahead; at first, or where a restart lost it, what is sampled now. Begins the next one."""
        if self._waiting is None:
            self._begin(step, state)
            self._waiting = InFlight(int(step), self._sampler.finish(), self._learners)
        waiting, placed = self._waiting, self._placed
        self._waiting = None
        if step + 1 < self._loop.config.steps:
            self._begin(step + 1, state)
        assert placed is not None
        return Lot(waiting.version, *placed, waiting.arrays)

    def _begin(self, step: int, state: LearnerState) -> None:
        self._position = self._loader.get_state()
        batch = self._read()
        since = time.perf_counter()
        self._sampler.begin(step, self._policy_of(state), batch)
        self._sync_seconds = time.perf_counter() - since
        self._placed = put_batch(self._mesh, batch)

    def settle(self, step: int, state: LearnerState) -> None:
        """Waits for the next step's experience."""
        if step + 1 >= self._loop.config.steps:
            # A run that is given more steps goes on with a fresh batch.
            self._position = self._loader.get_state()
            return
        jax.block_until_ready(state.step)
        since = time.perf_counter()
        with self._loop.awaiting(step, state, self):
            self._waiting = InFlight(step, self._sampler.finish(), self._learners)
        self._wait_seconds = time.perf_counter() - since

    def get_state(self) -> Any:
        """The loader's position before the batch that is in flight."""
        return self._position

    @property
    def in_flight(self) -> InFlight | None:
        """The next step's experience."""
        return self._waiting

    def figures(self) -> dict[str, Any]:
        """Seconds and bytes of the weights' last transfer, seconds that the learner waited for samples, and how many
        samples a restart lost."""
        figures = {
            "sync_seconds": self._sync_seconds, "sync_bytes": self._sampler.bytes,
            "wait_seconds": self._wait_seconds, "dropped_rollouts": self._dropped,
        }  # fmt: skip
        self._dropped = 0
        return {name: (np.float32(value), np.float32(1.0)) for name, value in figures.items()}

    def close(self) -> None:
        """Lets go of those who sample."""
        self._sampler.close()
