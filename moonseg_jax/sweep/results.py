"""What a sweep has come to: results of finished trials, the others by name, and whether results may be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import read_json
from moonseg_jax.sweep.folder import enrolled
from moonseg_jax.sweep.trial import Equal

SHARED = {"data": "data", "start_weights": "weights to start from", "judged": "held-out phrases"}
"""Fields of `Result` that all compared trials share, and how people call them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A finished trial, as `result.json` has it."""

    arm: str
    seed: int
    stage: str
    figures: Mapping[str, float]
    """Held-out figures at the end, the whole split."""
    start: Mapping[str, float] | None
    """The same of the policy it started from; None from scratch."""
    budget: Mapping[str, int]
    data: str
    start_weights: str
    judged: Mapping[str, int]
    train_seconds: float
    wall_seconds: float
    skipped_steps: int
    device: str
    version: str

    @property
    def name(self) -> str:
        """Of the trial."""
        return f"{self.arm}-seed{self.seed}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A trial without a result."""

    name: str
    status: str
    """`waiting`, `begun` or `failed`."""
    reason: str
    """Of a failure."""


def read_results(out: Path) -> tuple[list[Result], list[Unfinished]]:
    """All trials of a sweep's folder, by name.

    Raises:
      UserError: a result is broken; names the file.
    """
    results, unfinished = [], []
    for folder in enrolled(out):
        if folder.status != "finished":
            unfinished.append(Unfinished(name=folder.path.name, status=folder.status, reason=folder.reason))
            continue
        try:
            results.append(Result(**read_json(folder.result, missing="")))
        except TypeError as error:
            raise UserError(
                f"{folder.result} is no result of a trial ({error}); remove it to run that again"
            ) from error
    return results, unfinished


def refuse_unequal(results: Sequence[Result], baseline: str, equal: Equal, tolerance: float) -> None:
    """Lets only trials be compared that had the same data, start and budget.

    Args:
      results: of finished trials, the baseline's among them.
      baseline: its arm.
      equal: what the budget is: the counts of `budget`, or seconds of training on one kind of device.
      tolerance: with `seconds`, the share by which an arm's mean may differ from the baseline's.

    Raises:
      UserError: they differ; names two trials, what differs, and what to do.
    """
    first = next(result for result in results if result.arm == baseline)
    for field, said in SHARED.items():
        _refuse_other(field, said, first, results)
    if equal == "steps":
        _refuse_other("budget", "budgets", first, results)
        return
    _refuse_other("device", "devices, so that seconds mean different things,", first, results)
    of_arm: dict[str, list[Result]] = {}
    for result in results:
        of_arm.setdefault(result.arm, []).append(result)
    for trials in of_arm.values():
        _refuse_other("budget", "budgets", trials[0], trials)
    seconds = {arm: sum(one.train_seconds for one in trials) / len(trials) for arm, trials in of_arm.items()}
    for arm, trials in of_arm.items():
        if abs(seconds[arm] / seconds[baseline] - 1) > tolerance:
            steps = trials[0].budget["steps"]
            equal_steps = max(round(steps * seconds[baseline] / seconds[arm]), 1)
            raise UserError(
                f"arm {arm} trained for {seconds[arm]:.1f} s on average, the baseline {baseline} for "
                f"{seconds[baseline]:.1f} s, which differs by more than {tolerance:.0%}: run {arm} again with "
                f"{equal_steps} steps instead of {steps}, in a new folder, or allow more with --time-tolerance"
            )


def _refuse_other(field: str, said: str, first: Result, results: Sequence[Result]) -> None:
    for result in results:
        ours, theirs = getattr(first, field), getattr(result, field)
        if ours != theirs:
            raise UserError(
                f"trials with different {said} cannot be compared: {first.name} has {_shown(ours, theirs)}, "
                f"{result.name} {_shown(theirs, ours)}; give them sweeps of their own, or remove one arm's folders"
            )


def _shown(value: Any, other: Any) -> str:
    """What of a value is not in the other one."""
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{name} {one}" for name, one in value.items() if other.get(name) != one)
