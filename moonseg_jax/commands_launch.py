"""The command `moonseg launch`: a command in several processes on this machine."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from moonseg_jax.errors import UserError

BEHIND = "--"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """Run a command in several processes on this machine: moonseg launch --processes 2 -- moonseg train …

    Every line they write is passed on with its process's number in front. When one dies, the launcher says which and
    why, ends the others and exits with its code. Ctrl-C and SIGTERM are passed on.
    """

    processes: Annotated[int, tyro.conf.arg(metavar="N")]
    """How many; they find each other by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."""
    devices_per_process: Annotated[int | None, tyro.conf.arg(metavar="D")] = None
    """Devices that each makes of the CPU; by default as JAX finds them."""
    grace: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 30.0
    """From SIGTERM to SIGKILL; more than the --grace of `moonseg train`."""

    def run(self, command: Sequence[str] = ()) -> None:
        """Starts the processes and waits for them.

        Args:
          command: What stands behind `--`.

        Raises:
          UserError: No command, one that cannot be started, or a number is out of range.
          SystemExit: With the code of the first process that failed.
        """
        if not command:
            raise UserError("no command: name it behind --, as in moonseg launch --processes 2 -- moonseg train …")
        if self.processes < 1:
            raise UserError(f"--processes must be at least 1, got {self.processes}")
        if self.devices_per_process is not None and self.devices_per_process < 1:
            raise UserError(f"--devices-per-process must be at least 1, got {self.devices_per_process}")
        if not self.grace >= 0:
            raise UserError(f"--grace must not be negative, got {self.grace}")
        from moonseg_jax.launch import launch

        code = launch(
            command, processes=self.processes, devices_per_process=self.devices_per_process, grace=self.grace
        )  # fmt: skip
        if code:
            sys.exit(code)


def split_command(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of the launcher, and the command behind the first `--`."""
    words = list(words)
    if BEHIND not in words:
        return words, []
    place = words.index(BEHIND)
    return words[:place], words[place + 1 :]
