"""What every training loop does around its gradient step: resume, log, evaluate, keep the best, save, stop cleanly."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from moonseg_jax.checkpoint import Checkpoints
from moonseg_jax.errors import UserError
from moonseg_jax.learner.state import LearnerState
from moonseg_jax.learner.token_sums import WeightSums, effective_sample_size
from moonseg_jax.loggers import open_loggers, require_libraries
from moonseg_jax.processes import Team, largest_of_all
from moonseg_jax.progress import Progress
from moonseg_jax.run_directory import RunDirectory, read_json, write_json
from moonseg_jax.sharding import NO_MESH, to_host
from moonseg_jax.shares import own_share, together
from moonseg_jax.step_trace import StepTrace
from moonseg_jax.stopping import StopRequest, Terminated
from moonseg_jax.time_split import StepClock, shares
from moonseg_jax.train_config import LoopConfig
from moonseg_jax.types import SumAndCount

BEST_FILE = "best.json"
GRACE_SECONDS = 25.0
"""Less than the 30 seconds that Kubernetes leaves between SIGTERM and SIGKILL."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sitting:
    """How one sitting of a run is conducted; nothing of it changes what the run learns."""

    grace: float = GRACE_SECONDS
    """Seconds after SIGTERM in which the state must be on disk; see `Loop.repeatable`."""
    allow_older: bool = False
    """Where the newest checkpoint is damaged, go on from the one before it."""
    profile: int = 0
    """Steps to take a trace of; see `step_trace`."""


USUAL = Sitting()


class InFlight(NamedTuple):
    """What was sampled for the next step before the last one's update, and must survive a restart."""

    version: int
    """Of the policy that sampled: how many steps it had taken."""
    arrays: Any
    """On the learner's mesh."""
    learners: int
    """Processes whose shares of the batch its rows are, one behind the other."""


class Extra(Protocol):
    """State beside the learner's that must survive a restart."""

    def state(self) -> dict[str, np.ndarray]:
        """This process's share, as named arrays of one length."""

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes back what `state` gave; of several processes' on another number of them, any equal part."""


class Loop:
    """Bookkeeping of one training run, as a context manager around its steps."""

    def __init__(
        self,
        config: LoopConfig,
        run: RunDirectory,
        *,
        judged_by: str,
        evaluate: Callable[[Any], dict[str, float]],
        export: Callable[[Path, Any], object],
        extra: Extra | None = None,
        shown: Sequence[str] = (),
        averaged: Callable[[LearnerState], Any] = lambda state: state.averaged,
        sitting: Sitting = USUAL,
        team: Team | None = None,
    ):
        """Prepares a run.

        Args:
          config: cadences and number of steps.
          run: the run's folder.
          judged_by: name of the held-out figure whose highest value is kept as best.
          evaluate: averaged parameters on the host → held-out figures.
          export: writes averaged parameters as weights into a folder.
          extra: more state to save and restore (the pair buffer).
          shown: names of the figures of the live line, in this order.
          averaged: state → averaged parameters, on the device, as they are evaluated and exported.
          sitting: how this sitting is conducted.
          team: the processes that learn, where others do something else; process 0 is one of them. All agree on when
            to stop, and nothing else of this is theirs.

        Raises:
          UserError: the library of a logger is not installed.
        """
        self.config, self.run = config, run
        self._judged_by, self._evaluate, self._export, self._extra = judged_by, evaluate, export, extra
        self._averaged = averaged
        self._shown, self.clock = tuple(shown), StepClock()
        self._is_main = jax.process_index() == 0
        if self._is_main:
            require_libraries(config.loggers)
        self._team = team or tuple(range(jax.process_count()))
        self._checkpoints = Checkpoints(run.checkpoints, team)
        self._sums: dict[str, list[Any]] = {}
        self._skipped = 0
        self._in_row_before: jax.Array | None = None
        self._first = 0
        self._since = time.monotonic()
        self._sitting, self._stop = sitting, StopRequest(sitting.grace, quiet=not self._is_main)
        self._unjudged: LearnerState | None = None
        self._restored: Mapping[str, Any] = {}
        self._progress: Progress | None = None
        self._early_notes: list[str] = []

    def restore(self, state: LearnerState, loader: Any) -> LearnerState:
        """Goes on from the newest checkpoint: state, loader position, metrics, and sums not logged yet.

        Raises:
          UserError: there is no checkpoint, it is damaged, or it is another run's.
        """
        self._first, state, rest = self._checkpoints.restore(
            state, allow_older=self._sitting.allow_older, check=self._require_own
        )
        self._skipped = int(to_host(state.skipped_steps))
        self._in_row_before = jnp.copy(state.skipped_in_row)
        loader.set_state(rest["loader"])
        if self._extra is not None:
            own = self._team.index(jax.process_index())
            self._extra.load_state(own_share(rest["extra"], own, len(self._team)))
        self._sums = _unpacked_sums(rest.get("sums", {}))
        self._unjudged = state if rest.get("unjudged", 0) else None
        self._restored = rest
        if self._is_main:
            self.run.discard_metrics_after(self._first)
        return state

    @property
    def version_in_flight(self) -> int | None:
        """After `restore`: the policy version of what was saved as `InFlight`; None where nothing was."""
        return int(self._restored["in_flight"]["version"]) if "in_flight" in self._restored else None

    def restore_in_flight(self, like: Any) -> InFlight:
        """After `restore`: what was saved as `InFlight`, its arrays in the shapes and shardings of `like`."""
        saved = self._restored["in_flight"]
        arrays = self._checkpoints.restore_in_flight(self._first, like)
        return InFlight(int(saved["version"]), arrays, int(saved["learners"]))

    @property
    def first_step(self) -> int:
        """Number of the first step of this sitting."""
        return self._first

    def _require_own(self, step: int, rest: Mapping[str, Any]) -> None:
        if "run" in rest:
            self.run.require_own(self._checkpoints.folder / str(step), bytes(np.asarray(rest["run"])).decode())

    def __enter__(self) -> Loop:
        """Starts the display and takes over Ctrl-C and SIGTERM; judges what was stopped before it was judged."""
        self._loggers = open_loggers(self.config.loggers, self.run, self._first) if self._is_main else []
        self._stop.__enter__()
        self._progress = Progress(self.run.kind, self.config.steps, start=self._first, enabled=self._is_main)
        self._progress.__enter__()
        for text in self._early_notes:
            self.note(text)
        if self._first >= self.config.steps:
            self.note(f"{self._first} steps are done and steps is {self.config.steps}: nothing to do, raise --steps")
        unjudged, self._unjudged = self._unjudged, None
        if unjudged is not None:
            self.judge(self._first, unjudged)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Gives back signals and display, waits for writes."""
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)
        self._stop.__exit__(kind, error, trace)
        for logger in self._loggers:
            logger.close()
        self._checkpoints.close()

    def steps(self) -> Iterator[int]:
        """Numbers of the steps still to run, from 0."""
        trace = StepTrace(self.run.path, self._sitting.profile, self._first, self.config.steps, self.note)
        try:
            for step in range(self._first, self.config.steps):
                trace.before(step, self._sums)
                with jax.profiler.StepTraceAnnotation("step", step_num=step):
                    yield step
        finally:
            trace.close(self._sums)

    def logs_after(self, step: int) -> bool:
        """Whether `after_step` of this step logs, so that what is dear to measure is measured then."""
        return (step + 1) % self.config.log_every == 0 or step + 1 == self.config.steps

    def judges_after(self, step: int) -> bool:
        """Whether `after_step` of this step evaluates, unless it is asked to stop."""
        return (step + 1) % self.config.eval_every == 0 or step + 1 == self.config.steps

    @contextlib.contextmanager
    def repeatable(self, step: int, state: LearnerState, loader: Any) -> Iterator[None]:
        """The part of a step that a resumed run does again: reading and sampling, pure functions of state and step.

        A stop asked for inside is taken at its end, with the state from before the step. Where it lasts longer than
        the grace of SIGTERM, that state is saved from inside (of one process; several must agree, and wait for the
        end). The update afterwards takes the state's memory for its own, so that only its end can be waited for.

        Args:
          step: number of the step, from 0.
          state: before the step; nothing inside changes it.
          loader: iterator whose position is taken here.

        Raises:
          KeyboardInterrupt: at the end, after saving.
        """
        position = loader.get_state()
        with self._may_save(step, state, position):
            yield
        number = self._agreed_stop()
        if number:
            if self._checkpoints.latest_step != step:
                self._save(step, state, position)
            self._end(step, number)

    def record(self, sums: Mapping[str, Any]) -> None:
        """Takes losses and metrics of the step in hand, as `after_step` does, where something else is to come first."""
        for name, pair in sums.items():
            self._sums.setdefault(name, []).append(pair)

    def after_step(
        self, step: int, state: LearnerState, loader: Any, sums: Mapping[str, Any], in_flight: InFlight | None = None
    ) -> None:
        """Logs, evaluates and saves when it is time.

        Args:
          step: number of the step just taken, from 0.
          state: state after it.
          loader: iterator whose position is saved.
          sums: losses and metrics as (sum, count), or what else `figure` reads.
          in_flight: what was sampled ahead for the next step.

        Raises:
          UserError: too many steps in a row were skipped.
          KeyboardInterrupt: after saving, where Ctrl-C or SIGTERM asked to stop.
        """
        done = step + 1
        self.record(sums)
        last = done == self.config.steps
        self._refuse_endless_skips(done, state, last)
        if self.logs_after(step):
            self._log(done, state)
        number = 0 if last else self._agreed_stop()
        due = self.judges_after(step)
        position = loader.get_state()
        if due and not number:
            # An evaluation may last longer than the grace of SIGTERM; a resumed run does it again.
            with self._may_save(done, state, position, unjudged=True, in_flight=in_flight):
                self.judge(done, state)
        if done % self.config.checkpoint_every == 0 or last or number:
            self._save(done, state, position, unjudged=bool(due and number), in_flight=in_flight)
        number = number or (0 if last else self._agreed_stop())
        if number:
            if self._checkpoints.latest_step != done:
                self._save(done, state, position, in_flight=in_flight)
            self._end(done, number)

    @contextlib.contextmanager
    def awaiting(self, step: int, state: LearnerState, loader: Any) -> Iterator[None]:
        """The wait, after a step's update, for what is sampled for the next one.

        Where it lasts longer than the grace of SIGTERM, the state is saved from inside (of one process) without what
        is in flight, which a resumed run samples again, from a newer policy.

        Args:
          step: number of the step just taken, from 0.
          state: after it.
          loader: iterator whose position is saved.

        What the step's figures are must be known, see `record`.
        """
        with self._may_save(step + 1, state, loader.get_state()):
            yield

    def _save(
        self,
        done: int,
        state: LearnerState,
        position: Any,
        *,
        unjudged: bool = False,
        in_flight: InFlight | None = None,
    ) -> None:
        """A checkpoint after `done` steps: all that the next sitting needs to be as if it were this one."""
        rest = {"loader": position, "run": np.frombuffer(self.run.identity.encode(), np.uint8)}
        if in_flight is not None:
            rest["in_flight"] = {"version": in_flight.version, "learners": in_flight.learners}
        if self._sums:
            rest["sums"] = _packed_sums(jax.device_get(self._sums))
        if unjudged:
            rest["unjudged"] = 1
        if self._extra is not None:
            rest["extra"] = together(self._extra.state(), self._team)
        self._checkpoints.save(done, state, rest, in_flight.arrays if in_flight is not None else None)

    @contextlib.contextmanager
    def _may_save(
        self,
        done: int,
        state: LearnerState,
        position: Any,
        *,
        unjudged: bool = False,
        in_flight: InFlight | None = None,
    ) -> Iterator[None]:
        """While inside, an overdue stop saves this state; not of several processes, which had to agree first."""

        def save() -> None:
            if unjudged or self._checkpoints.latest_step != done:
                self._save(done, state, position, unjudged=unjudged, in_flight=in_flight)
            self._checkpoints.close()
            for logger in self._loggers:
                logger.close()
            print(f"\n{self.run.kind}: {self._stopped(done)}", file=sys.stderr)

        if jax.process_count() > 1:
            yield
            return
        with self._stop.may_save(save):
            yield

    def _agreed_stop(self) -> int:
        """The signal that asks to stop, on every process the same; 0 for none."""
        return agreed_stop(self._stop)

    def _end(self, done: int, number: int) -> NoReturn:
        self.note(self._stopped(done))
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _stopped(self, done: int) -> str:
        return f"stopped at step {done}; go on with --resume --out {self.run.path}"

    def judge(self, done: int, state: LearnerState) -> None:
        """Evaluates the averaged weights on held-out data; keeps them if they are the best so far."""
        params = to_host(self._averaged(state))
        # Every process judges by itself: programs over the mesh of training would wait for the others. Without any mesh
        # they are those of `judge` and `moonseg eval`, which need not be compiled again.
        with jax.set_mesh(NO_MESH):
            figures = self._evaluate(params)
        value = figures[self._judged_by]
        if self._is_main:
            self._write(done, {f"eval_{name}": figure for name, figure in figures.items()})
            best = self._best()
            is_best = best is None or value > best
            shown = "  ".join(f"{name} {figure:.3f}" for name, figure in figures.items())
            self.note(f"step {done}: held-out {shown}" + ("  (best so far)" if is_best else ""))
            self._export(self.run.path / "last", params)
            if is_best:
                self._export(self.run.path / "best", params)
                write_json(self.run.path / BEST_FILE, {"step": done, self._judged_by: value})

    def note(self, text: str) -> None:
        """A line that stays on the screen; once there is a display, if there is none yet."""
        if self._progress is None:
            self._early_notes.append(text)
        else:
            self._progress.note(text)

    def _best(self) -> float | None:
        file = self.run.path / BEST_FILE
        return read_json(file, missing="")[self._judged_by] if file.is_file() else None

    def _refuse_endless_skips(self, done: int, state: LearnerState, last: bool) -> None:
        """Stops a run that skips one step after the other; looks one step back, so as not to wait for the device."""
        in_row, self._in_row_before = self._in_row_before, jnp.copy(state.skipped_in_row)
        in_row = self._in_row_before if last else in_row
        if in_row is None or int(to_host(in_row)) < self.config.max_skipped_steps:
            return
        self._log(done, state)
        good = self._checkpoints.latest_step
        if good is None:
            kept = "no checkpoint was saved before"
        else:
            kept = f"--resume goes on from the last good checkpoint, {self._checkpoints.folder / str(good)}"
        raise UserError(
            f"step {done}: loss or gradient was not finite for {int(to_host(in_row))} steps in a row "
            f"(max_skipped_steps is {self.config.max_skipped_steps}); {kept}; other settings, such as a lower "
            "optimizer.learning_rate, need a new run"
        )

    def _log(self, done: int, state: LearnerState) -> None:
        figures = {name: figure(parts) for name, parts in jax.device_get(self._sums).items()}
        steps = max(len(parts) for parts in self._sums.values())
        skipped, before = int(to_host(state.skipped_steps)), self._skipped
        now = time.monotonic()
        split = self.clock.take(steps)
        if self._is_main:
            seconds = (now - self._since) / steps
            self._write(done, {**figures, "skipped_steps": skipped, "seconds_per_step": seconds, **split})
        if skipped > before:
            self.note(f"step {done}: {skipped - before} steps skipped, their loss or gradient was not finite")
        shown = {name: figures[name] for name in self._shown if name in figures}
        if self._progress is not None:
            self._progress.update(done, shown, shares(split))
        self._sums, self._skipped, self._since = {}, skipped, now

    def _write(self, done: int, figures: Mapping[str, float]) -> None:
        self.run.append_metrics(done, figures)
        for logger in self._loggers:
            logger.log(done, figures)


def _packed_sums(sums: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Sums by name, one per step, as arrays by the number of the part: (sum, count), or the three of `WeightSums`."""
    return {
        name: {str(part): np.stack(values) for part, values in enumerate(zip(*steps, strict=True))}
        for name, steps in sums.items()
    }


def _unpacked_sums(packed: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, list[Any]]:
    """What `_packed_sums` was given."""
    sums: dict[str, list[Any]] = {}
    for name, parts in packed.items():
        columns = [parts[str(number)] for number in range(len(parts))]
        steps = list(zip(*columns, strict=True))
        sums[name] = [WeightSums(*one) for one in steps] if len(columns) == len(WeightSums._fields) else steps
    return sums


def agreed_stop(stop: StopRequest) -> int:
    """The signal that asks to stop, on every process the same; 0 for none. All must ask."""
    return largest_of_all(stop.number)


def figure(parts: Sequence[SumAndCount] | Sequence[WeightSums]) -> float:
    """One figure of the steps since the last log: a mean, or an effective sample size from its three sums.

    NaN where nothing was counted: there was no such object, or nothing was learned.
    """
    added = jax.tree.map(lambda *leaves: np.sum(leaves), *parts)
    if isinstance(added, WeightSums):
        return float(effective_sample_size(added)) if added.tokens else math.nan
    total, count = added
    return float(total / count) if count else math.nan
