"""Live progress of long loops: a bar with rate, time left and a few metrics, or plain lines in a log."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import rich.progress
from rich.console import Console

WINDOW_SECONDS = 60.0
"""The rate is taken over the last minute, so that compiling at the start does not spoil the time left."""


class Rate:
    """Steps per second over the last `WINDOW_SECONDS`."""

    def __init__(self) -> None:
        self._marks: collections.deque[tuple[float, int]] = collections.deque()

    def mark(self, seconds: float, step: int) -> None:
        """Notes that `step` was reached at `seconds` on any clock that only grows."""
        self._marks.append((seconds, step))
        while len(self._marks) > 2 and seconds - self._marks[0][0] > WINDOW_SECONDS:
            self._marks.popleft()

    def per_second(self) -> float | None:
        """The rate; None before two marks have told one."""
        if len(self._marks) < 2:
            return None
        (first_seconds, first_step), (last_seconds, last_step) = self._marks[0], self._marks[-1]
        passed = last_seconds - first_seconds
        return (last_step - first_step) / passed if passed > 0 and last_step > first_step else None


class Progress:
    """Progress of one loop, as a context manager.

    On a terminal: a live bar. Elsewhere (CI, logs): a line at the first step, at the last, and every
    `plain_seconds` between. A line that stays (`note`) never tears the bar.
    """

    def __init__(
        self,
        description: str,
        total: int,
        *,
        start: int = 0,
        enabled: bool = True,
        plain_seconds: float = 30.0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the display; nothing is drawn before the `with` block is entered.

        Args:
          description: What runs, in a word or two.
          total: Step at which the loop ends.
          start: Step at which it starts (resumed runs).
          enabled: False on every process but the first.
          plain_seconds: Seconds between lines where there is no terminal.
          console: Where to draw; standard error by default, so that results can be piped.
          clock: Seconds, growing.
        """
        self._console = console or Console(stderr=True)
        self._description, self._total, self._step = description, total, start
        self._enabled, self._plain_seconds, self._clock = enabled, plain_seconds, clock
        self._rate = Rate()
        self._rate.mark(clock(), start)
        self._last_line: float | None = None
        self._live: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)

    def __enter__(self) -> Progress:
        """Starts drawing."""
        if self._enabled and self._console.is_terminal:
            self._live = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", style="bold", markup=False),
                rich.progress.BarColumn(bar_width=24),
                rich.progress.TextColumn("{task.fields[line]}", markup=False),
                console=self._console,
            )
            self._task = self._live.add_task(self._description, total=self._total, completed=self._step, line="")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops drawing and leaves the last state on the screen."""
        if self._live is not None:
            self._live.stop()

    def update(self, step: int, metrics: Mapping[str, Any] | None = None, rest: str = "") -> None:
        """Shows that `step` steps are done.

        Args:
          step: how many.
          metrics: a few current scalars, shown in this order; what is not finite is shown as –.
          rest: shown after them as it is.
        """
        now = self._clock()
        self._step = step
        self._rate.mark(now, step)
        if not self._enabled:
            return
        line = self._line(metrics or {}) + (f"  {rest}" if rest else "")
        if self._live is not None:
            self._live.update(self._task, completed=step, line=line)
            return
        due = self._last_line is None or now - self._last_line >= self._plain_seconds or step >= self._total
        if due:
            self._last_line = now
            self._print(f"{self._description}: {line}")

    def note(self, text: str) -> None:
        """Prints a line that stays: an evaluation, a checkpoint, a warning."""
        if self._enabled:
            self._print(f"{self._description}: {text}")

    def _print(self, text: str) -> None:
        console = self._live.console if self._live is not None else self._console
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _line(self, metrics: Mapping[str, Any]) -> str:
        parts = [f"{self._step}/{self._total}"]
        rate = self._rate.per_second()
        if rate is not None:
            left = max(self._total - self._step, 0) / rate
            parts += [f"{rate:.2f}/s" if rate >= 1 else f"{1 / rate:.1f} s/step", f"{duration(left)} left"]
        parts += [f"{name} {_figure(float(value))}" for name, value in metrics.items()]
        return "  ".join(parts)


def _figure(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def duration(seconds: float) -> str:
    """Seconds as a person says them: `42 s`, `3:05 min`, `2:07 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
