"""From the seconds in a run's metrics to where its time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moonseg_jax.report.content import TimeSplit
from moonseg_jax.time_split import DECODE, PREFIX, ROLLOUT, SHOWN

PER_STEP = f"{PREFIX}per_step"
REST = "rest"
REST_MEANS = "“rest” is what no part was timed for: compiling, evaluating, saving, logging."
"""First calls of a program compile, and are in no part."""
OVERLAPS = "Samplers work beside the learner, so that parts add up to more than the time that passed."
MORE_THAN_ALL = 1.05
"""Parts whose sum exceeds the steps by more than this overlap; less is the clock's."""


def time_spent(title: str, rows: Sequence[Mapping[str, Any]]) -> TimeSplit | None:
    """Adds up the parts of the steps that every log stands for; None where no log has any.

    Args:
      title: of the stage.
      rows: of its `metrics.jsonl`, in order.
    """
    logs = [row for row in rows if _seconds(row, PER_STEP) > 0]
    timed = {name for row in logs for name in row if name.startswith(PREFIX) and name != PER_STEP}
    names = [name.removeprefix(PREFIX) for name in timed]
    if DECODE in names:
        # A rollout is what its parts make together.
        names.remove(ROLLOUT) if ROLLOUT in names else None
    if not names:
        return None
    parts = sorted(names, key=lambda part: (SHOWN.index(part) if part in SHOWN else len(SHOWN), part))
    steps = np.asarray([row["step"] for row in logs], np.int64)
    taken = np.diff(steps, prepend=0).clip(min=1)
    per_step = np.array([[_seconds(row, PREFIX + part) for part in parts] for row in logs]).reshape(len(logs), -1)
    whole = np.array([_seconds(row, PER_STEP) for row in logs])
    rest = np.maximum(whole - per_step.sum(axis=1), 0.0)
    overlaps = per_step.sum() > MORE_THAN_ALL * whole.sum()
    return TimeSplit(
        title=title, parts=(*parts, REST), steps=steps,
        seconds=np.concatenate([per_step, rest[:, None]], axis=1) * taken[:, None],
        note=f"{REST_MEANS} {OVERLAPS}" if overlaps else REST_MEANS,
    )  # fmt: skip


def _seconds(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
