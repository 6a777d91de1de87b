"""Where the time of training steps goes: parts timed by the host, and parts of one program estimated beside it.

The host can time a whole compiled program and nothing inside it. A rollout is one program, so its encoding,
prefill and scoring are timed apart, as programs of their own on the run's first batch (`rollout.part_times`): their
shapes never change and no data decides how long they take, unlike decoding, which gets what they leave of the whole.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import jax

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PREFIX = "seconds_"
"""Before a part's name in `metrics.jsonl`."""
ROLLOUT, DECODE = "rollout", "decode"
SHOWN = ("data", "encode", "prefill", DECODE, "score", "learn")
"""Parts of the live line, in the order of a step."""


class StepClock:
    """Seconds of the parts of a step, gathered between two logs."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """Starts with nothing timed; `now` gives growing seconds."""
        self._now = now
        self._timed: list[_Timed] = []
        self._inside: dict[str, float] = {}

    def timed(self, part: str, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """The same function, timed until its result is there; its first call compiles and counts for nothing.

        Waiting for a program whose result the next one needs on the same device takes no time from either. Several
        functions may be of one part.
        """
        record = _Timed(part)
        self._timed.append(record)

        def timed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            started = self._now()
            result = jax.block_until_ready(function(*args, **kwargs))
            if record.called:
                record.seconds.append(self._now() - started)
            record.called = True
            record.calls += 1
            return result

        return timed

    @property
    def knows_inside(self) -> bool:
        """Whether the parts of a rollout were measured."""
        return bool(self._inside)

    def set_inside(self, parts: Mapping[str, float]) -> None:
        """Takes seconds of parts of a rollout that were measured apart."""
        self._inside = dict(parts)

    def take(self, steps: int) -> dict[str, float]:
        """Seconds a step of every part since the last call, by `seconds_…`; NaN where nothing but a first call was.

        Args:
          steps: taken since then.
        """
        split: dict[str, float] = {}
        for record in self._timed:
            if record.called:
                split[record.part] = split.get(record.part, 0.0) + record.take(steps)
        if ROLLOUT in split and self._inside:
            split |= self._inside
            # Programs of their own may take longer than the same work inside a larger one.
            split[DECODE] = _at_least_0(split[ROLLOUT] - sum(self._inside.values()))
        return {PREFIX + part: seconds for part, seconds in split.items()}


@dataclasses.dataclass
class _Timed:
    """Calls of one function since the last log."""

    part: str
    called: bool = False
    """Whether it was ever called."""
    calls: int = 0
    seconds: list[float] = dataclasses.field(default_factory=list)

    def take(self, steps: int) -> float:
        mean = sum(self.seconds) / len(self.seconds) if self.seconds else math.nan
        per_step = mean * self.calls / steps if self.calls else 0.0
        self.calls, self.seconds = 0, []
        return per_step


def shares(figures: Mapping[str, float]) -> str:
    """The parts of `take` as one says them, `decode 48 %  learn 52 %`; empty before more than one is known."""
    known = {part: figures[PREFIX + part] for part in SHOWN if math.isfinite(figures.get(PREFIX + part, math.nan))}
    total = sum(known.values())
    if len(known) < 2 or not total:
        return ""
    return "  ".join(f"{part} {seconds / total:.0%}".replace("%", " %") for part, seconds in known.items())


def _at_least_0(seconds: float) -> float:
    return seconds if math.isnan(seconds) else max(seconds, 0.0)
