"""A log → all figures, one pass per stage; the order of the lines never matters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moonseg_jax.errors import UserError
from moonseg_jax.evaluation.sample_log import read_lines, score_of
from moonseg_jax.evaluation.settings import Stage
from moonseg_jax.scoring.figures import bootstrap, by_size, figures, mean, mean_over_classes, status_counts
from moonseg_jax.scoring.sample_score import SampleScore, ratio
from moonseg_jax.status import BAD_BOX, UNSAYABLE, is_as_asked

SHAPES = ("filled_box", "ellipse", "hull", "flood_fill")
"""Trivial predictions that are masks."""
OBJECTS = ("other_object", "any_object")
"""Trivial predictions that are means over objects."""


def summarise(log: Path, *, stage: Stage, seed: int, phrases_are_classes: bool) -> dict[str, Any]:
    """Everything that `metrics.json` says of the samples.

    Args:
      log: of all samples.
      stage: masks that figures are given of.
      seed: of the intervals.
      phrases_are_classes: whether to take the mean over phrases too (LVIS).

    Returns:
      By stage its figures, 95 % `intervals`, `by_size` and `empty`; `class_miou` where phrases are classes;
      `sampled_miou` where samples were drawn; `baselines`; `statuses`, and of these `unrefined` (refinement was asked
      for and did not happen) and `invalid` (no path could be asked for or cut out).

    Raises:
      UserError: the log is empty or broken, or holds a sample twice.
    """
    result: dict[str, Any] = {}
    for name in ("coarse", "refined") if stage == "both" else (stage,):
        samples, phrases = _samples(log, name)
        result[name] = _figures(log, samples, seed)
        if phrases_are_classes:
            numbers = {phrase: number for number, phrase in enumerate(sorted(set(phrases)))}
            result[name]["class_miou"] = mean_over_classes(samples, [numbers[phrase] for phrase in phrases])
            result[name]["classes"] = len(numbers)
        statuses = status_counts(samples)
        del statuses["empty"]
        result["statuses"] = statuses
    result["unrefined"] = sum(count for status, count in result["statuses"].items() if not is_as_asked(status))
    result["invalid"] = sum(result["statuses"].get(status, 0) for status in (BAD_BOX, UNSAYABLE))
    sampled = [line["sampled"] for line in read_lines(log) if line["sampled"] is not None]
    if sampled:
        result["sampled_miou"] = mean(ratio(*pair) for pair in sampled)
    result["baselines"] = _baselines(line for line in read_lines(log) if line["trivial"] is not None)
    return result


def _samples(log: Path, stage: str) -> tuple[list[SampleScore], list[str]]:
    samples, phrases = [], []
    for line in read_lines(log):
        samples.append(score_of(line, stage))
        phrases.append(line["phrase"])
    if not samples:
        raise UserError(f"{log}: no phrase was judged; the split has none")
    return samples, phrases


def _figures(log: Path, samples: list[SampleScore], seed: int) -> dict[str, Any]:
    try:
        intervals = bootstrap(samples, seed=seed)
    except ValueError as error:
        raise UserError(f"{log}: {error}; start over with --fresh") from error
    return {
        **figures(samples), "intervals": intervals, "by_size": by_size(samples),
        "empty": status_counts(samples)["empty"],
    }  # fmt: skip


def _baselines(lines: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Mean IoU of trivial predictions over the phrases with a target; `coarse` is the policy's outline on the same."""
    columns: dict[str, list[float]] = {name: [] for name in (*SHAPES, *OBJECTS, "coarse")}
    for line in lines:
        trivial = line["trivial"]
        for name in SHAPES:
            if trivial[name] is not None:
                columns[name].append(ratio(*trivial[name]))
        for name in OBJECTS:
            if trivial[name] is not None:
                columns[name].append(trivial[name])
        columns["coarse"].append(line["coarse_iou"])
    means = {name: mean(values) for name, values in columns.items() if values}
    if "flood_fill" in means:
        means["flood_fill_gain"] = means["flood_fill"] - means["coarse"]
    return {**means, "n": len(columns["coarse"])}
