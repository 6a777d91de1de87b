"""From the metrics of stages to charts, those of a kind together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moonseg_jax.report.content import Curve, CurveGroup, CurvePart, Series
from moonseg_jax.report.metric_names import PARTS, place_of

NOT_METRICS = ("step", "wall_seconds")
Rows = Sequence[Mapping[str, Any]]


def curve_group(title: str, runs: Mapping[str, Rows]) -> CurveGroup:
    """The charts of one stage, of one run or of several.

    Args:
      title: of the stage.
      runs: rows of `metrics.jsonl` by the name of their run; with more than one, each is a line of every chart.
    """
    names = dict.fromkeys(
        name
        for rows in runs.values()
        for row in rows
        for name, value in row.items()
        if is_number(value) and name not in NOT_METRICS
    )
    parts = []
    for part in PARTS:
        ranked = sorted((name for name in names if place_of(name)[0] == part), key=lambda name: place_of(name)[1])
        if ranked:
            parts.append(CurvePart(title=part, curves=tuple(_curve(name, runs) for name in ranked)))
    return CurveGroup(title=title, parts=tuple(parts))


def shared_metrics(first: Rows, second: Rows) -> set[str]:
    """Names that both have numbers of."""
    have = [
        {name for row in rows for name, value in row.items() if is_number(value)} - set(NOT_METRICS)
        for rows in (first, second)
    ]
    return have[0] & have[1]


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _curve(metric: str, runs: Mapping[str, Rows]) -> Curve:
    title = place_of(metric)[2]
    series = tuple(
        _series(name if len(runs) > 1 else title, [row for row in rows if metric in row], metric)
        for name, rows in runs.items()
    )
    return Curve(title=title, series=series, metric=metric)


def _series(name: str, rows: Rows, metric: str) -> Series:
    values = [float(row[metric]) if is_number(row[metric]) else np.nan for row in rows]
    return Series(
        name=name, steps=np.asarray([row["step"] for row in rows], np.int64), values=np.asarray(values, float)
    )  # fmt: skip
