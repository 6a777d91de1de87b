"""The command `moonseg sweep`: runs trials, or compares those that are done."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from moonseg_jax.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from moonseg_jax.report.content import Table as Content

Figure = Literal["miou", "ciou", "biou_2px", "tokens", "sampled_miou"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Run the trials of a sweep, all or a part, or compare those that are done.

    moonseg sweep CONFIG --out DIR: all trials, one after the other.

    moonseg sweep CONFIG --out DIR --trial 3/10: every tenth from the third on (SLURM arrays, JobSets).

    moonseg sweep --summarise DIR: table, page and summary.json.

    Settings of all trials are options too: --data DIR --start-from DIR --steps 100.
    """

    config: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")] = None
    """Python file with sweep(), for example experiments/reward_shapes.py."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the sweep, which several processes may share; runs/CONFIG-sweep by default."""
    trial: Annotated[str | None, tyro.conf.arg(metavar="i/N")] = None
    """Only the i-th of N parts; parts share no trial."""
    arms: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ARM ...")] = ()
    """Only these arms and the baseline; all by default."""
    resume: bool = False
    """Go on with trials that were begun, from their last checkpoints, and try failed ones again."""
    driver: Literal["grid", "optuna"] = "grid"
    """grid: what sweep() lists; optuna: a search over what search(trial) suggests."""
    trials: int | None = None
    """With optuna: trials in all, those of other processes included."""
    figure: Figure | None = None
    """With optuna: the held-out figure that is searched for the best of; miou by default."""
    summarise: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Compare the finished trials in this folder instead of running any."""
    baseline: Annotated[str | None, tyro.conf.arg(metavar="ARM")] = None
    """With --summarise: the arm that the others are compared with; the sweep's own by default."""
    time_tolerance: float | None = None
    """With --summarise: by what share training times may differ in a sweep of equal seconds."""

    def run(self, overrides: Sequence[str] = ()) -> None:
        """Runs or compares.

        Args:
          overrides: Settings of every trial as on a command line: `--steps 100`.

        Raises:
          UserError: Options that do not go together, a config or folder that cannot be used, trials that failed or
            that cannot be compared.
        """
        self._refuse_idle(overrides)
        if self.summarise is not None:
            self._compare(self.summarise)
            return
        assert self.config is not None, "refused above"
        out = self.out or Path("runs") / f"{self.config.stem}-{'sweep' if self.driver == 'grid' else 'search'}"
        from moonseg_jax.compilation import keep_compiled_programs

        if self.driver == "optuna":
            from moonseg_jax.sweep.search import Search

            search = Search(self.config, out, self.figure or "miou", overrides)
            keep_compiled_programs()
            search.run(self.trials or 0, resume=self.resume)
            return
        from moonseg_jax.sweep.grid import parse_part, run_grid
        from moonseg_jax.sweep.sweep_file import load_sweep

        part = parse_part(self.trial) if self.trial is not None else (1, 1)
        sweep = load_sweep(self.config, arms=self.arms, overrides=overrides)
        keep_compiled_programs()
        run_grid(sweep, out, part=part, resume=self.resume)

    def _compare(self, folder: Path) -> None:
        from rich.console import Console

        from moonseg_jax.refiner_evidence.tables import markdown
        from moonseg_jax.sweep.evidence_tables import FILE as EVIDENCE_FILE
        from moonseg_jax.sweep.evidence_tables import sweep_evidence
        from moonseg_jax.sweep.page import write_summary
        from moonseg_jax.sweep.summary import summarise
        from moonseg_jax.sweep.tables import TITLES, mean_table, test_tables, unfinished_table
        from moonseg_jax.sweep.trial import REFINED_FIGURES

        summary = summarise(folder, self.baseline, self.time_tolerance)
        files: tuple[Path, ...] = write_summary(summary, folder)
        console, missing = Console(), unfinished_table(summary)
        judged = [table for table in test_tables(summary) if table.title.startswith(TITLES[summary.judged_by])]
        for content in (mean_table(summary), *judged, *([missing] if missing else [])):
            table = _drawn(content)
            # A figure that is cut off or folded is none: lines longer than the terminal are wrapped by it.
            console.print(table, width=max(console.width, console.measure(table).maximum), crop=False)
        if summary.figures == REFINED_FIGURES:
            tables = "\n".join(markdown(table) for table in sweep_evidence(folder))
            (folder / EVIDENCE_FILE).write_text(tables, encoding="utf-8")
            files = (*files, folder / EVIDENCE_FILE)
        for name, file in zip(("figures", "page", "evidence"), files):
            console.print(f"{name:8} {file}", highlight=False, soft_wrap=True)

    def _refuse_idle(self, overrides: Sequence[str]) -> None:
        """Refuses options that would do nothing."""
        is_search = self.driver == "optuna"
        if (self.config is None) == (self.summarise is None):
            raise UserError("moonseg sweep needs a config to run, or --summarise DIR to compare what has run; not both")
        rules = {
            "--trial": (self.trial is not None, self.summarise is None and not is_search, "a grid"),
            "--arms": (bool(self.arms), self.summarise is None and not is_search, "a grid"),
            "--trials": (self.trials is not None, is_search, "--driver optuna"),
            "--figure": (self.figure is not None, is_search, "--driver optuna"),
            "--baseline": (self.baseline is not None, self.summarise is not None, "--summarise"),
            "--time-tolerance": (self.time_tolerance is not None, self.summarise is not None, "--summarise"),
            "--resume": (self.resume, self.summarise is None, "a config"),
            "--out": (self.out is not None, self.summarise is None, "a config"),
            " ".join(overrides): (bool(overrides), self.summarise is None, "a config"),
        }
        for option, (given, has_use, place) in rules.items():
            if given and not has_use:
                raise UserError(f"{option} goes with {place} only: leave it out")
        if is_search and (self.trials is None or self.trials < 1):
            raise UserError("--driver optuna needs --trials N, how many trials the study is to have in all")
        if self.time_tolerance is not None and not self.time_tolerance > 0:
            raise UserError(f"--time-tolerance must be above 0, got {self.time_tolerance}")


def _drawn(content: Content) -> Table:
    """A table for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=content.title, title_justify="left", box=SIMPLE_HEAD, caption=content.note or None)
    table.caption_justify = "left"
    for column in content.columns:
        table.add_column(column, no_wrap=True)
    for row in content.rows:
        table.add_row(*row)
    return table
