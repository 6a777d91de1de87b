"""The folder of a sweep, shared by every process that runs a part of it.

DIR/sweep.json                 how the sweep is judged
DIR/starts/FINGERPRINT.json    held-out figures of a policy that trials start from
DIR/trials/NAME/trial.json     arm, seed, budget and config of a trial
               /lock           held by the process that runs it; the system lets go when that process dies
               /run/           its run: metrics, checkpoints, weights
               /result.json    there once it is finished
               /evidence.json  of a refiner: what it does, by source of the coarse masks, iteration, size and start
               /error.txt      why it failed, where it did
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from moonseg_jax.config_file import config_text
from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import CONFIG_FILE, flat_settings, read_json
from moonseg_jax.sweep.trial import Trial

SWEEP_FILE, TRIALS, STARTS = "sweep.json", "trials", "starts"
Status = Literal["waiting", "begun", "failed", "finished"]


class TrialFolder:
    """What is on disk of one trial."""

    def __init__(self, path: Path):
        """Names the folder, which need not exist."""
        self.path = path
        self.run = path / "run"
        self.result, self.error, self._record = path / "result.json", path / "error.txt", path / "trial.json"
        self.evidence = path / "evidence.json"

    @property
    def status(self) -> Status:
        """How far the trial has come; `begun` says nothing of whether a process is at it, see `held`."""
        if self.result.is_file():
            return "finished"
        if self.error.is_file():
            return "failed"
        return "begun" if (self.run / CONFIG_FILE).is_file() else "waiting"

    @property
    def reason(self) -> str:
        """The last line of the error of a failed trial, else nothing."""
        if not self.error.is_file():
            return ""
        lines = self.error.read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else "no reason was written"

    def record(self) -> dict[str, Any]:
        """What `enrol` wrote.

        Raises:
          UserError: the file is missing or broken.
        """
        return read_json(self._record, missing=f"{self._record} is missing: run the sweep again, with --resume")

    def enrol(self, trial: Trial) -> None:
        """Writes down what the trial is, so that one that never ran is listed too.

        Raises:
          UserError: the folder holds a run with other settings; names them.
        """
        record = {
            "arm": trial.arm, "seed": trial.config.seed, "stage": trial.stage, "budget": trial.budget,
            "config": json.loads(config_text(trial.config)),
        }  # fmt: skip
        before = self.record() if self._record.is_file() else None
        if before == record:
            return
        if before is not None and (self.status == "finished" or (self.run / CONFIG_FILE).is_file()):
            old, new = flat_settings(before), flat_settings(record)
            changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            raise UserError(
                f"{self.path} was run with other settings ({', '.join(changed)}): restore them, name another --out, "
                "or remove that folder to run it anew"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        write_shared(self._record, record)

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Takes the trial for this process; gives False where a living process has it already."""
        with lock(self.path / "lock", wait=False) as taken:
            yield taken

    def discard_run(self) -> None:
        """Removes a run that left nothing to go on with."""
        shutil.rmtree(self.run)


def trial_folder(out: Path, name: str) -> TrialFolder:
    """The folder of the trial with this name."""
    return TrialFolder(out / TRIALS / name)


def enrolled(out: Path) -> list[TrialFolder]:
    """Every trial of a sweep that was ever meant to run, by name."""
    return [TrialFolder(path.parent) for path in sorted((out / TRIALS).glob("*/trial.json"))]


def open_sweep(out: Path, judgement: Mapping[str, Any]) -> None:
    """Makes the folder of a sweep, or opens it again.

    Raises:
      UserError: another sweep, or something else, is there; or it may not be written.
    """
    try:
        (out / TRIALS).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{out} cannot be a folder, a file is in the way: name another --out") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write in {out}: name another --out")
    if not (out / SWEEP_FILE).is_file():
        write_shared(out / SWEEP_FILE, judgement)
    found = read_sweep(out)
    if found != dict(judgement):
        changed = sorted(name for name in found.keys() | judgement.keys() if found.get(name) != judgement.get(name))
        raise UserError(f"{out} holds a sweep with other {', '.join(changed)}: name another folder with --out")


def read_sweep(out: Path) -> dict[str, Any]:
    """How the sweep in a folder is judged.

    Raises:
      UserError: there is none.
    """
    return read_json(out / SWEEP_FILE, missing=f"{out} holds no sweep: there is no {SWEEP_FILE}")


def write_shared(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON whole or not at all, where several processes may write the same file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds an advisory lock on a file; the system releases it with the process, however that ends.

    Args:
      path: made if missing, and left there.
      wait: for a process that has it; else give False.
    """
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
