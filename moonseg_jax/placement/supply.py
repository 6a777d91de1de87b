"""Where the learner's batches and their experience come from, step by step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from moonseg_jax.learner.state import LearnerState
from moonseg_jax.loop import InFlight, Loop
from moonseg_jax.placement.experience import Experience, Sample
from moonseg_jax.types import PromptBatch, TargetBatch

PolicyOf = Callable[[LearnerState], Any]
"""State → the policy's parameters as sampling reads them."""


class Lot(NamedTuple):
    """What one step learns from, on the learner's mesh."""

    version: int
    """Of the policy that sampled: how many steps it had taken."""
    batch: PromptBatch
    targets: TargetBatch
    experience: Experience


class Supply(Protocol):
    """Sampling as the learner sees it."""

    def take(self, step: int, state: LearnerState) -> Lot:
        """What a step learns from.

        Args:
          step: number of the step, from 0.
          state: before it; the update may take its memory afterwards.
        """

    def settle(self, step: int, state: LearnerState) -> None:
        """Waits for what is sampled ahead; after the update of `step`, with the state after it."""

    def get_state(self) -> Any:
        """Position of the loader at the first batch that nobody has learned from."""

    @property
    def in_flight(self) -> InFlight | None:
        """What is sampled ahead and must survive a restart."""

    def figures(self) -> dict[str, Any]:
        """What is to be logged of the last step's exchange."""


class TakingTurns:
    """The same devices sample and learn: every step learns from samples of the policy it starts with."""

    def __init__(self, loop: Loop, loader: Any, read: Callable[[], Any], sample: Sample, policy_of: PolicyOf):
        """Samples nothing yet.

        Args:
          loop: of the run; its steps up to the update are repeatable.
          loader: iterator over batches.
          read: takes the next one to the devices.
          sample: see `make_sample`.
          policy_of: state → parameters.
        """
        self._loop, self._loader, self._read = loop, loader, read
        self._sample, self._policy_of = sample, policy_of

    def take(self, step: int, state: LearnerState) -> Lot:
        """Reads and samples; see `Loop.repeatable` for a stop meanwhile."""
        with self._loop.repeatable(step, state, self._loader):
            batch, targets = self._read()
            return Lot(step, batch, targets, self._sample(self._policy_of(state), batch, targets, step))

    def settle(self, step: int, state: LearnerState) -> None:
        """Nothing is ahead."""

    def get_state(self) -> Any:
        """The loader's position."""
        return self._loader.get_state()

    @property
    def in_flight(self) -> None:
        """Nothing is ahead."""
        return None

    def figures(self) -> dict[str, Any]:
        """There is no exchange."""
        return {}


@contextlib.contextmanager
def closing(supply: Any) -> Any:
    """Ends what a supply runs beside the main thread."""
    try:
        yield
    finally:
        getattr(supply, "close", lambda: None)()
