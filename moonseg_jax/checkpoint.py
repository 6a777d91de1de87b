"""Resumable checkpoints with Orbax: everything that matters in one save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from moonseg_jax.errors import UserError

KEEP = 2
"""Checkpoints kept per run: the latest, and one before it."""


class Checkpoints:
    """The numbered checkpoints of one run."""

    def __init__(self, folder: Path):
        """Opens (or creates) the folder."""
        keep = ocp.training.preservation_policies.LatestN(KEEP)
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(), preservation_policy=keep, cleanup_tmp_directories=True
        )
        self.folder = folder

    @property
    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint; None where there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any, rest: Any) -> None:
        """Writes the learner's state and the rest of the run (NumPy arrays, numbers) together, to the end."""
        self._checkpointer.save_checkpointables(step, {"state": state, "rest": _pack(rest)}, overwrite=True)

    def restore(self, like: Any) -> tuple[int, Any, Any]:
        """Reads the newest checkpoint into the shapes and shardings of `like`.

        Returns:
          Step, state, rest.

        Raises:
          UserError: there is no checkpoint, or it is of another shape.
        """
        step = self.latest_step
        if step is None:
            raise UserError(
                f"{self.folder} holds no finished checkpoint to resume from: leave out --resume and name another "
                "--out, or remove that run's folder"
            )
        abstract = jax.tree.map(_abstract, like)
        try:
            loaded = self._checkpointer.load_checkpointables(step, {"state": abstract, "rest": None})
        except (ValueError, KeyError) as error:
            # Orbax wraps what went wrong in a KeyError that prints the whole tree.
            reason = error.__cause__ or error
            raise UserError(f"{self.folder}, step {step}: not a checkpoint of this model ({reason})") from error
        return step, loaded["state"], _unpack(loaded["rest"])

    def close(self) -> None:
        """Waits for writes in flight."""
        self._checkpointer.close()


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _pack(rest: Any) -> Any:
    """Numbers become arrays: Orbax restores those in kind. Arrays grow by a row: it refuses empty ones."""

    def pack(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return np.concatenate([array, np.zeros((1, *array.shape[1:]), array.dtype)]) if array.ndim else array

    return jax.tree.map(pack, rest)


def _unpack(rest: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:-1] if leaf.ndim else leaf.item(), rest)
