"""Resumable checkpoints with Orbax: everything that matters in one save, and nothing damaged taken for whole."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from moonseg_jax.checkpoint_files import Damaged, require_whole, write_list
from moonseg_jax.errors import UserError
from moonseg_jax.processes import Team, wait_for_all
from moonseg_jax.storage import absolute, keep_folder, move_folder
from moonseg_jax.team_checkpointer import TeamCheckpointer

KEEP = 2
"""Checkpoints kept per run: the latest, and one before it."""
DAMAGED = ".damaged"
"""Behind the name of a checkpoint that was set aside."""


class Checkpoints:
    """The numbered checkpoints of one run."""

    def __init__(self, folder: Path, team: Team | None = None):
        """Opens (or creates) the folder; what an interrupted save left in it is removed.

        Args:
          folder: of the checkpoints.
          team: the processes that save and restore, where that is not all of them.
        """
        self.folder, self._team, self._failed = folder, team, False
        self._open()

    def _open(self) -> None:
        self._checkpointer: Any
        if jax.process_index() == 0:
            keep_folder(self.folder)
        if self._team is not None and len(self._team) < jax.process_count():
            self._checkpointer = TeamCheckpointer(absolute(self.folder), self._team, keep=KEEP)
            return
        keep = ocp.training.preservation_policies.LatestN(KEEP)
        self._checkpointer = ocp.training.Checkpointer(
            absolute(self.folder), preservation_policy=keep, cleanup_tmp_directories=True
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint; None where there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else int(latest.step)

    def save(self, step: int, state: Any, rest: Any, in_flight: Any = None) -> None:
        """Writes the learner's state and the rest of the run (NumPy arrays, numbers) together, to the end.

        Args:
          step: its number.
          state: arrays on the learner's mesh.
          rest: NumPy arrays and numbers, the same on every process.
          in_flight: more arrays on that mesh, which need not be there to restore the others.

        Raises:
          UserError: the disk is full; the checkpoints before are as they were.
        """
        before = self.latest_step
        try:
            parts = {"state": state, "rest": _pack(rest)}
            if in_flight is not None:
                parts["in_flight"] = _numbered(in_flight)
            self._checkpointer.save_checkpointables(step, parts, overwrite=True)
            if jax.process_index() == 0:
                write_list(self.folder / str(step))
        # Orbax and TensorStore raise many kinds for the system's one reason.
        except Exception as error:
            if not is_full_disk(error):
                raise
            self._failed = True
            kept = "no checkpoint was saved before" if before is None else f"checkpoint {before} is whole"
            raise UserError(
                f"no space left for checkpoint {step} in {self.folder}: {kept}; make room, then go on with --resume"
            ) from error

    def restore_in_flight(self, step: int, like: Any) -> Any:
        """What `save` was given to go with that step's state, in the shapes and shardings of `like`.

        Raises:
          UserError: it is damaged, or of another shape.
        """
        leaves, structure = jax.tree.flatten(like)
        found = self._load(step, {"in_flight": _numbered(jax.tree.map(_abstract, leaves))})["in_flight"]
        return jax.tree.unflatten(structure, [found[str(number)] for number in range(len(leaves))])

    def restore(
        self, like: Any, *, allow_older: bool = False, check: Callable[[int, Any], None] = lambda step, rest: None
    ) -> tuple[int, Any, Any]:
        """Reads the newest checkpoint into the shapes and shardings of `like`.

        Args:
          like: a state of the same shapes.
          allow_older: where the newest is damaged, set it aside and read the one before it.
          check: is given step and rest before the state is read, and raises where they are not this run's.

        Returns:
          Step, state, rest.

        Raises:
          UserError: there is no checkpoint, it is damaged, or it is of another shape.
        """
        while True:
            step = self.latest_step
            if step is None:
                raise UserError(
                    f"{self.folder} holds no finished checkpoint to resume from: leave out --resume and name another "
                    "--out, or remove that run's folder"
                )
            try:
                return self._read(step, like, check)
            except Damaged as damage:
                older = [one.step for one in self._checkpointer.checkpoints if one.step < step]
                if not older:
                    raise UserError(f"{damage}; there is none before it: start over with another --out") from damage
                if not allow_older:
                    raise UserError(
                        f"{damage}; --allow-older goes on from checkpoint {older[-1]}, the one before it"
                    ) from damage
                self._set_aside(step)

    def _read(self, step: int, like: Any, check: Callable[[int, Any], None]) -> tuple[int, Any, Any]:
        require_whole(self.folder / str(step), self._team)
        abstract = jax.tree.map(_abstract, like)
        rest = _unpack(self._load(step, {"rest": None})["rest"])
        check(step, rest)
        return step, self._load(step, {"state": abstract})["state"], rest

    def _load(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._checkpointer.load_checkpointables(step, wanted)
        except (ValueError, KeyError) as error:
            # Orbax wraps what went wrong in a KeyError that prints the whole tree.
            reason = error.__cause__ or error
            if isinstance(reason, (json.JSONDecodeError, FileNotFoundError)) or "OCDBT" in str(reason):
                raise Damaged(f"{self.folder / str(step)} is damaged ({str(reason)[:200]})") from error
            raise UserError(f"{self.folder}, step {step}: not a checkpoint of this model ({reason})") from error

    def _set_aside(self, step: int) -> None:
        """Renames a damaged checkpoint, so that the next save under its number is not taken for it."""
        self._checkpointer.close()
        # All have seen it, before one renames it.
        wait_for_all(f"damaged-{step}", self._team)
        if jax.process_index() == 0:
            folder = self.folder / str(step)
            move_folder(folder, folder.with_name(folder.name + DAMAGED))
        wait_for_all(f"aside-{step}", self._team)
        self._open()

    def close(self) -> None:
        """Waits for writes in flight."""
        # After a save that failed, Orbax would raise its error once more, in place of ours.
        with contextlib.suppress(Exception) if self._failed else contextlib.nullcontext():
            self._checkpointer.close()


def is_full_disk(error: BaseException) -> bool:
    """Whether this, or what it came from, says that a device or a quota has no space left."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # TensorStore passes the system's words on.
        if "No space left on device" in str(cause) or "Disk quota exceeded" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _numbered(tree: Any) -> dict[str, Any]:
    """Leaves by their numbers: a tree of any kind as one that every version of Orbax can name."""
    return {str(number): leaf for number, leaf in enumerate(jax.tree.leaves(tree))}


def _abstract(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _pack(rest: Any) -> Any:
    """Numbers become arrays: Orbax restores those in kind. Arrays grow by a row: it refuses empty ones."""

    def pack(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return np.concatenate([array, np.zeros((1, *array.shape[1:]), array.dtype)]) if array.ndim else array

    return jax.tree.map(pack, rest)


def _unpack(rest: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:-1] if leaf.ndim else leaf.item(), rest)
