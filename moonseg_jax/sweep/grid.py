"""Every trial of a sweep, or one part of them, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from moonseg_jax.errors import UserError
from moonseg_jax.sweep.folder import open_sweep, trial_folder
from moonseg_jax.sweep.run_trial import run_trial
from moonseg_jax.sweep.trial import Sweep, Trial


def parse_part(text: str) -> tuple[int, int]:
    """`i/N` as numbers, 1 ≤ i ≤ N.

    Raises:
      UserError: it is none.
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UserError(f"--trial is {text!r}; it must be i/N with i from 1 to N, such as 3/10")
    return int(part), int(parts)


def part_of(trials: Sequence[Trial], part: int, parts: int) -> list[Trial]:
    """Every N-th trial from the i-th on: parts share no trial, and together they are all of them."""
    return list(trials[part - 1 :: parts])


def run_grid(sweep: Sweep, out: Path, *, part: tuple[int, int] = (1, 1), resume: bool = False) -> None:
    """Runs what is not finished of a part of a sweep.

    Args:
      sweep: all trials; each is enrolled, so that the ones that never ran are listed.
      out: folder of the sweep, which other processes may be working in.
      part: i of N.
      resume: go on with trials that were begun, and try failed ones again.

    Raises:
      UserError: the folder holds another sweep; trials were begun or failed and `resume` is not asked for; or, at the
        end, trials have failed.
    """
    console = Console(stderr=True)
    open_sweep(out, {"kind": "grid", **sweep.judgement()})
    for trial in sweep.trials:
        trial_folder(out, trial.name).enrol(trial)
    mine = part_of(sweep.trials, *part)
    if not resume:
        _refuse_begun(mine, out)
    for number, trial in enumerate(mine, start=1):
        console.rule(f"trial {number} of {len(mine)}: {trial.name}")
        console.print(_take(trial, out, sweep.eval_phrases), highlight=False, markup=False)
    _report(mine, out, console)


def _take(trial: Trial, out: Path, eval_phrases: int) -> str:
    """Runs one trial unless it is finished or in other hands; says which."""
    folder = trial_folder(out, trial.name)
    with folder.held() as taken:
        if not taken:
            return "another process is at it"
        if folder.status == "finished":
            return "finished before"
        result = run_trial(trial, folder, out, eval_phrases)
    if result is None:
        return f"failed: {folder.reason}"
    return "  ".join(f"{name} {value:.4g}" for name, value in result["figures"].items())


def _refuse_begun(trials: Sequence[Trial], out: Path) -> None:
    begun = [trial.name for trial in trials if trial_folder(out, trial.name).status in ("begun", "failed")]
    if begun:
        shown = ", ".join(begun[:3]) + (f" and {len(begun) - 3} more" if len(begun) > 3 else "")
        raise UserError(f"{out}: {shown} were begun and not finished; --resume goes on with them")


def _report(trials: Sequence[Trial], out: Path, console: Console) -> None:
    table = Table(box=SIMPLE_HEAD)
    for column in ("trial", "status", ""):
        table.add_column(column, overflow="fold")
    folders = [trial_folder(out, trial.name) for trial in trials]
    for folder in folders:
        table.add_row(folder.path.name, folder.status, folder.reason)
    console.print(table)
    failed = [folder for folder in folders if folder.status == "failed"]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(trials)} trials failed, the first with {failed[0].reason} (see {failed[0].error}); "
            "--resume tries them again"
        )
