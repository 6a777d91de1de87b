"""A trace of some steps of a run: which program ran when, on which device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

FIRST_TRACED = 2
"""Steps of a sitting before the trace: the first one compiles, the second may compile for what the first gave back."""
FOLDER = "profile"
VIEWERS = "open perfetto_trace.json.gz in it with https://ui.perfetto.dev, or the folder with xprof or TensorBoard"


class StepTrace:
    """Starts and stops JAX's profiler at steps; of several processes each writes its own folder."""

    def __init__(self, folder: Path, steps: int, first: int, last: int, note: Callable[[str], None]):
        """Traces nothing yet.

        Args:
          folder: of the run.
          steps: how many to trace; 0 none.
          first: step that this sitting begins with, from 0.
          last: steps of the run.
          note: takes a line for the screen.
        """
        many = jax.process_count() > 1
        self._folder = folder / (f"{FOLDER}-{jax.process_index()}" if many else FOLDER)
        self._note, self._running = note, False
        self._begin = first + FIRST_TRACED
        self._end = min(self._begin + steps, last)
        if steps and self._begin >= self._end:
            note(f"--profile: no step is traced, because this sitting has {last - first} and the first 2 are not")
        elif steps and steps > self._end - self._begin:
            note(f"--profile: only {self._end - self._begin} of {steps} steps can be traced before the run ends")

    def before(self, step: int, pending: Any) -> None:
        """Called between steps.

        Args:
          step: that comes next.
          pending: results of those before, which must be there when a trace begins or ends.
        """
        if step == self._begin and step < self._end:
            jax.block_until_ready(pending)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True
        elif step == self._end:
            self.close(pending)

    def close(self, pending: Any = None) -> None:
        """Writes the trace, if one is being taken."""
        if not self._running:
            return
        self._running = False
        jax.block_until_ready(pending)
        jax.profiler.stop_trace()
        self._note(f"trace of steps {self._begin + 1} to {self._end} in {self._folder}: {VIEWERS}")
