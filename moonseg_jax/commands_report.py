"""The command that writes the page of a run, or of two side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from moonseg_jax.errors import UserError

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="RUN")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html, one self-contained page, from what a run left in its folder."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    beside: OptionalPath = None
    """Folder of another run, to stand beside it: its curves in the same charts, its figures and scenes with their
    differences, and the settings that differ."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """The page; report.html in the run's folder by default, with --beside beside-NAME.html."""

    def run(self) -> None:
        """Writes the page and says where.

        Raises:
          UserError: A folder holds no run, a file in it is broken, two runs have nothing in common, or the page cannot
            be written there.
        """
        from moonseg_jax.report.beside import write_report_beside
        from moonseg_jax.report.run import write_run_report
        from moonseg_jax.storage import require_readable

        for run in filter(None, (self.path, self.beside)):
            require_readable(run)
        if self.out is not None:
            _require_place(self.out)
        if self.beside is None:
            print(f"wrote {write_run_report(self.path, self.out)}")
        else:
            print(f"wrote {write_report_beside(self.path, self.beside, self.out)}")


def _require_place(file: Path) -> None:
    from moonseg_jax.storage import in_bucket, require_writable

    if in_bucket(file):
        require_writable(file.parent)
        return
    if file.is_dir():
        raise UserError(f"--out {file} is a folder: name a file in it, such as {file / 'report.html'}")
    if not file.parent.is_dir():
        raise UserError(f"--out {file}: there is no folder {file.parent}; make it, or name another file")
