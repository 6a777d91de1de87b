"""The folder of one run: its config, its metrics, its summary and its checkpoints.

RUN/config.json      what was run: {"kind": …, "version": …, "config": {…}}
RUN/metrics.jsonl    one JSON object a line: step, wall_seconds, then the metrics
RUN/summary.json     the figures at the end, where the run has any
RUN/checkpoints/     written by the training loops
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import moonseg_jax
from moonseg_jax.errors import UserError
from moonseg_jax.storage import GrowingObject, in_bucket, is_empty, require_readable, require_writable, write_whole

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
CHECKPOINTS = "checkpoints"


class RunDirectory:
    """A folder that belongs to exactly one run."""

    def __init__(
        self,
        path: Path,
        kind: str,
        *,
        config_text: str = "{}",
        may_differ: Collection[str] = (),
        seconds_before: float = 0.0,
        beside: bool = False,
    ) -> None:
        """Names a folder that exists; `create`, `resume` and, beside the process that called them, this are the ways.

        Args:
          path: the folder.
          kind: what runs in it.
          config_text: the run's config as JSON.
          may_differ: dotted names of settings that a resumed run may change.
          seconds_before: that the run has taken in earlier sittings.
          beside: whether another process made the folder, and has to give it back.
        """
        self.path = path
        self.kind = kind
        self._config_text, self._may_differ, self._beside = config_text, may_differ, beside
        self._started = time.monotonic() - seconds_before
        self._metrics: GrowingObject | None = None

    @classmethod
    def create(
        cls, path: Path, kind: str, config_text: str, *, may_differ: Collection[str] = (), resumable: bool = True
    ) -> RunDirectory:
        """Makes the folder (parents too) and writes down what is being run.

        Args:
          path: The folder; it may exist, empty of another run.
          kind: What runs: `sft`, `rl`, `refiner`, `quickstart`.
          config_text: The run's config as JSON.
          may_differ: Dotted names of settings that a resumed run may change.
          resumable: Whether its command knows --resume.

        Raises:
          UserError: The folder holds another run, is not a folder, or may not be written.
        """
        _make_writable(path)
        if (path / CONFIG_FILE).exists() or (path / METRICS_FILE).exists():
            go_on = ", or go on with that run with --resume" if resumable else ""
            raise UserError(f"{path} holds another run already: name another folder with --out{go_on}")
        record = {"kind": kind, "version": moonseg_jax.__version__, "config": json.loads(config_text)}
        write_json(path / CONFIG_FILE, record)
        return cls(path, kind, config_text=config_text, may_differ=may_differ)

    @classmethod
    def resume(cls, path: Path, kind: str, config_text: str, *, may_differ: Collection[str] = ()) -> RunDirectory:
        """Opens the folder of a run to go on with it; its clock goes on too.

        Args:
          path: The folder `create` made.
          kind: What runs; must be what the folder says.
          config_text: The run's config as JSON; must say what the folder says.
          may_differ: Dotted names of settings that are allowed to have changed.

        Raises:
          UserError: No run is there, or one of another kind or with other settings (the settings are named).
        """
        require_readable(path)
        record = read_json(path / CONFIG_FILE, missing=f"{path} holds no run to resume: leave out --resume")
        if record.get("kind") != kind:
            raise UserError(f"{path} holds a run of kind {record.get('kind')!r}, not {kind!r}: name another --out")
        described = changed_settings(record["config"], json.loads(config_text), may_differ)
        if described:
            raise UserError(f"{path} was run with other settings: {described}; restore them or name another --out")
        _make_writable(path)
        if record["config"] != json.loads(config_text):
            write_json(path / CONFIG_FILE, {**record, "config": json.loads(config_text)})
        rows = read_metrics(path / METRICS_FILE) if (path / METRICS_FILE).exists() else []
        before = rows[-1]["wall_seconds"] if rows else 0.0
        return cls(path, kind, config_text=config_text, may_differ=may_differ, seconds_before=before)

    @property
    def identity(self) -> str:
        """What runs here, for its checkpoints: kind and settings, as JSON."""
        return json.dumps({"kind": self.kind, "config": json.loads(self._config_text)}, sort_keys=True)

    def require_own(self, checkpoint: Path, identity: str) -> None:
        """Refuses a checkpoint that another run left.

        Args:
          checkpoint: its folder.
          identity: of the run that saved it.

        Raises:
          UserError: names both, and the settings in which they differ.
        """
        saved, own = json.loads(identity), json.loads(self.identity)
        differences = changed_settings(saved["config"], own["config"], self._may_differ)
        if saved["kind"] != own["kind"]:
            differences = f"kind (was {saved['kind']!r}, now {own['kind']!r})"
        if differences:
            raise UserError(
                f"{checkpoint} belongs to another run (fingerprint {fingerprint(identity)}) than "
                f"{self.path / CONFIG_FILE} (fingerprint {fingerprint(self.identity)}): {differences}; bring "
                "this run's checkpoints back, or name another --out"
            )

    def withdraw(self) -> None:
        """Gives the folder back where the run never took a step: the same command may then be given again."""
        if self._beside:
            return
        started = (self.path / METRICS_FILE).exists() or not is_empty(self.checkpoints)
        if not started:
            (self.path / CONFIG_FILE).unlink(missing_ok=True)

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints go."""
        return self.path / CHECKPOINTS

    @property
    def wall_seconds(self) -> float:
        """Seconds this run has taken, earlier sittings included up to their last metrics."""
        return time.monotonic() - self._started

    def append_metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends one line to `metrics.jsonl` and flushes it to disk; in a bucket the file is written anew.

        Args:
          step: Step the metrics belong to.
          metrics: Scalars (Python, NumPy or JAX); what is not finite is written as null.
        """
        row: dict[str, Any] = {"step": int(step), "wall_seconds": round(self.wall_seconds, 3)}
        row.update({name: _finite_or_none(value) for name, value in metrics.items()})
        path, line = self.path / METRICS_FILE, json.dumps(row, allow_nan=False) + "\n"
        if in_bucket(path):
            self._metrics = self._metrics or GrowingObject(path)
            self._metrics.append(line)
            return
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            # The system does not name the file whose buffers it cannot write.
            raise OSError(error.errno, error.strerror, str(path)) from error

    def discard_metrics_after(self, step: int) -> None:
        """Drops the lines of steps later than `step`: a resumed run computes them again."""
        path = self.path / METRICS_FILE
        if path.exists():
            kept = [row for row in read_metrics(path) if row["step"] <= step]
            write_whole(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept))
            self._metrics = None

    def write_summary(self, summary: Mapping[str, Any]) -> Path:
        """Writes `summary.json` and returns its path."""
        write_json(self.path / SUMMARY_FILE, summary)
        return self.path / SUMMARY_FILE


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`; a last line cut short by a kill is left out.

    Raises:
      UserError: Another line is not JSON, or a line is not an object with a step; names it.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: not JSON ({error.msg}); remove the line") from error
            continue
        if not isinstance(row, dict) or "step" not in row:
            raise UserError(f"{path}, line {number}: not the metrics of a step; remove the line")
        rows.append(row)
    return rows


def read_json(path: Path, *, missing: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: The file.
      missing: The message where the file does not exist.

    Raises:
      UserError: The file does not exist or is not a JSON object.
    """
    if not path.is_file():
        raise UserError(missing)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object whole or not at all; numbers that are not finite become null."""
    write_whole(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _make_writable(path: Path) -> None:
    if in_bucket(path):
        require_writable(path)
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path} cannot be a folder, a file is in the way: name another --out") from error
    except PermissionError as error:
        raise UserError(f"no permission to make {path}: name another --out") from error
    except OSError as error:
        raise UserError(f"{path} cannot be made ({error.strerror or error}): name another --out") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write in {path}: name another --out")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return _finite_or_none(value)


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def changed_settings(before: Any, now: Any, may_differ: Collection[str] = ()) -> str:
    """The settings that differ between two configs, each with both values; empty where none does."""
    first, second = flat_settings(before), flat_settings(now)
    changed = sorted(
        name for name in first.keys() | second.keys() if first.get(name) != second.get(name) and name not in may_differ
    )
    return ", ".join(f"{name} (was {first.get(name)!r}, now {second.get(name)!r})" for name in changed)


def fingerprint(text: str) -> str:
    """A few letters that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def flat_settings(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    return {
        name: leaf for key, inner in value.items() for name, leaf in flat_settings(inner, f"{prefix}{key}.").items()
    }
