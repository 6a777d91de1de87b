"""Two sides of sampling on other hosts: how a learner sees it, and what those hosts do."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import jax

from moonseg_jax.loop import agreed_stop
from moonseg_jax.placement.between_hosts import BetweenHosts
from moonseg_jax.placement.experience import Experience, Sample
from moonseg_jax.placement.roles import Roles
from moonseg_jax.processes import text_of_first
from moonseg_jax.sharding import NO_MESH, put_batch
from moonseg_jax.stopping import StopRequest, Terminated


class SamplersOnOtherHosts:
    """Those who sample, as a learner sees them."""

    def __init__(self, exchange: BetweenHosts, shapes_of: Callable[[Any], Experience]):
        """Nothing is begun.

        Args:
          exchange: between the hosts.
          shapes_of: batch → shapes of one group's experience.
        """
        self._exchange, self._shapes_of = exchange, shapes_of
        self._shapes: Experience | None = None
        self.bytes = exchange.bytes

    def begin(self, step: int, params: Any, batch: Any) -> None:
        """Sends weights; the others have read the batch themselves."""
        self._shapes = self._shapes or self._shapes_of(batch)
        with jax.set_mesh(NO_MESH):
            self._exchange.weights(params)

    def finish(self) -> Experience:
        """Receives what they sampled."""
        assert self._shapes is not None
        with jax.set_mesh(NO_MESH):
            received = self._exchange.experience(None, self._shapes)
        assert received is not None
        return received

    def close(self) -> None:
        """They end by themselves."""


def tell_where_to_begin(first: int, position: Any, has_samples: bool) -> None:
    """A learner's side of `sample_for_others`: which step comes first, and what was sampled for it already."""
    text_of_first(json.dumps({"first": first, "position": position, "has_samples": has_samples}))


def sample_for_others(
    roles: Roles,
    exchange: BetweenHosts,
    sample: Sample,
    shapes_of: Callable[[Any], Experience],
    loader: Any,
    read: Callable[[], Any],
    *,
    steps: int,
    grace: float,
) -> None:
    """What a process does that only samples: receives weights, samples, hands over, until the run ends.

    Args:
      roles: who does what.
      exchange: between the hosts.
      sample: compiled for this group's mesh.
      shapes_of: batch → shapes of this group's experience.
      loader: iterator over this process's batches.
      read: takes the next one.
      steps: of the run.
      grace: see `StopRequest`.

    Raises:
      KeyboardInterrupt: where all agreed to stop.
    """
    told = json.loads(text_of_first(""))
    loader.set_state(told["position"])

    def sample_for(step: int) -> None:
        batch = read()
        with jax.set_mesh(NO_MESH):
            weights = exchange.weights(None)
        with jax.set_mesh(roles.sampler):
            prompts, targets = put_batch(roles.sampler, batch)
            sampled = jax.block_until_ready(sample(weights, prompts, targets, step))
        del weights
        with jax.set_mesh(NO_MESH):
            exchange.experience(sampled, shapes_of(batch))

    with StopRequest(grace, quiet=True) as stop:
        first = told["first"]
        if not told["has_samples"] and first < steps:
            sample_for(first)
        for step in range(first, steps):
            if step + 1 == steps:
                return
            sample_for(step + 1)
            # As often as the learners' loop asks after a step.
            number = agreed_stop(stop) or agreed_stop(stop)
            if number:
                raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
