"""Rows that every process has a share of, put together for a checkpoint and shared out again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moonseg_jax.processes import Team, gathered_from

Rows = Mapping[str, np.ndarray]
"""Named arrays of one length."""


def together(own: Rows, team: Team) -> dict[str, Any]:
    """The rows of all of a team of processes, the same on every one of them; all of it must call.

    Returns:
      `rows`, one process's behind the other's, and `counts`, how many each has.
    """
    length = len(next(iter(own.values())))
    counts = gathered_from(team, np.array([length])).reshape(-1)
    longest = max(int(counts.max()), 1)
    rows = {}
    for name, values in own.items():
        padded = np.zeros((longest, *values.shape[1:]), values.dtype)
        padded[:length] = values
        # As bytes: JAX would turn whole numbers of 64 bits into ones of 32.
        of_all = gathered_from(team, np.frombuffer(padded.tobytes(), np.uint8))
        parts = [np.frombuffer(part.tobytes(), values.dtype).reshape(padded.shape) for part in of_all]
        rows[name] = np.concatenate([part[:count] for part, count in zip(parts, counts, strict=True)])
    return {"rows": rows, "counts": counts}


def own_share(state: Mapping[str, Any], index: int, processes: int) -> dict[str, np.ndarray]:
    """A process's rows of what `together` gave: its own, or, on another number of processes, every so many-th.

    Args:
      state: of all processes.
      index: of this one.
      processes: how many there are now.
    """
    counts = np.asarray(state["counts"])
    if len(counts) == processes:
        first = int(counts[:index].sum())
        chosen = slice(first, first + int(counts[index]))
    else:
        chosen = slice(index, None, processes)
    return {name: np.asarray(values)[chosen] for name, values in state["rows"].items()}
