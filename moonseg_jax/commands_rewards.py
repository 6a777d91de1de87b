"""The commands `moonseg rewards …`: what reward shapes would teach."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from moonseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardsCompare:
    """Score the same stored rollouts under every reward shape: an answer before any training is paid for."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|ROLLOUTS.npz")]
    """Folder of an RL run with --keep-rollouts, or its rollouts.npz."""
    shapes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Shapes to compare; all that have a name by default. Plain IoU always comes first."""
    sweep: Annotated[Path | None, tyro.conf.arg(metavar="CONFIG")] = None
    """Compare what the arms of this config file's sweep() are paid with, by arm; --shapes may add to them."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for compare.json and compare.html; beside the rollouts by default."""
    step: int | None = None
    """Where schedules stand; by default where they stood when each group was sampled."""

    def run(self) -> None:
        """Compares, writes both files and prints the table.

        Raises:
          UserError: No rollouts there, a file that is none, an unknown shape, a config without sweep(), or a folder
            that cannot be written.
        """
        if self.step is not None and self.step < 0:
            raise UserError(f"--step must not be negative, got {self.step}")
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        from moonseg_jax.compilation import keep_compiled_programs
        from moonseg_jax.reward_compare.page import COLUMNS, shape_rows
        from moonseg_jax.reward_compare.run import compare_rewards

        keep_compiled_programs()
        compared = compare_rewards(self.path, self.shapes, sweep=self.sweep, out=self.out, step=self.step)
        comparison, stored = compared.comparison, compared.stored
        table = Table(
            title=f"{len(stored)} groups of {stored.group} rollouts; advantages against plain IoU over the "
            f"{comparison.learned} groups not flat in raw IoU",
            box=SIMPLE_HEAD,
        )
        table.add_column(COLUMNS[0], no_wrap=True)
        for column in COLUMNS[1:-1]:
            table.add_column(column, justify="right")
        for row in shape_rows(comparison):
            table.add_row(*row[:-1])
        console = Console()
        console.print(table)
        console.print(f"figures  {compared.json}\npage     {compared.page}", highlight=False, soft_wrap=True)


# A union of one is no union, and tyro makes subcommands of unions only: hence the hidden None.
RewardsAction = Annotated[RewardsCompare, tyro.conf.subcommand("compare")] | Annotated[None, tyro.conf.Suppress]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewards:
    """Reward shapes, judged on rollouts that are there already."""

    action: RewardsAction

    def run(self) -> None:
        """Does the chosen action."""
        if self.action is not None:
            self.action.run()
