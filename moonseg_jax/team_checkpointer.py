"""Checkpoints of some of a run's processes, while the others do something else.

Orbax's `v1.training.Checkpointer` waits for all processes of the program. The older manager, whose files are the same,
can be told which of them take part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from moonseg_jax.processes import Team, wait_for_all


class TeamCheckpointer:
    """Stands in for `v1.training.Checkpointer`, as far as `Checkpoints` uses it."""

    def __init__(self, folder: Path, team: Team, *, keep: int):
        """Opens (or creates) a folder.

        Args:
          folder: of the numbered checkpoints.
          team: the processes that take part; all of them must call everything here.
          keep: how many of the newest stay.
        """
        if jax.process_index() == team[0]:
            folder.mkdir(parents=True, exist_ok=True)
        wait_for_all(f"folder-{folder}", team)
        self._options = ocp.options.MultiprocessingOptions(
            primary_host=team[0], active_processes=set(team), barrier_sync_key_prefix="learners"
        )
        self._manager = ocp.CheckpointManager(
            folder, options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=False, cleanup_tmp_directories=True, enable_async_checkpointing=False,
                multiprocessing_options=self._options,
            ),
        )  # fmt: skip

    @property
    def checkpoints(self) -> list[Any]:
        """Those that are finished, by ascending `step`."""
        return [_Numbered(step) for step in sorted(self._manager.all_steps())]

    @property
    def latest(self) -> Any:
        """The newest of them; None where there is none."""
        return self.checkpoints[-1] if self.checkpoints else None

    def save_checkpointables(self, step: int, parts: dict[str, Any], *, overwrite: bool) -> None:
        """Writes trees by name."""
        if overwrite and step in self._manager.all_steps():
            self._manager.delete(step)
        saved = {name: ocp.args.PyTreeSave(jax.tree.map(_writable, tree)) for name, tree in parts.items()}
        self._manager.save(step, args=ocp.args.Composite(**saved), force=True)
        self._manager.wait_until_finished()

    def load_checkpointables(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        """Reads trees by name, each in the shapes and shardings of what is given for it; None reads NumPy arrays."""
        read = {name: _restored(like) for name, like in wanted.items()}
        found = self._manager.restore(step, args=ocp.args.Composite(**read))
        return {name: found[name] for name in wanted}

    def close(self) -> None:
        """Waits for writes in flight."""
        self._manager.close()


class _Numbered:
    def __init__(self, step: int):
        self.step = step


def _writable(leaf: Any) -> Any:
    """Orbax takes an array of one process alone for a mistake where there are several: it goes by way of the host."""
    return np.asarray(leaf) if isinstance(leaf, jax.Array) and leaf.is_fully_addressable else leaf


def _restored(like: Any) -> Any:
    if like is None:
        return ocp.args.PyTreeRestore()
    return ocp.args.PyTreeRestore(like, restore_args=ocp.checkpoint_utils.construct_restore_args(like))
