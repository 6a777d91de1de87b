"""The comparison of a sweep's arms: means over seeds, and differences paired by seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moonseg_jax.errors import UserError
from moonseg_jax.sweep.folder import read_sweep
from moonseg_jax.sweep.paired import Mean, PairedTest, mean_over_seeds, paired_test, with_holm
from moonseg_jax.sweep.results import Result, Unfinished, read_results, refuse_unequal
from moonseg_jax.sweep.trial import FEWER_IS_BETTER, figures_of

Tests = dict[str, dict[str, PairedTest]]
"""Figure → arm → test."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm over its finished seeds."""

    seeds: tuple[int, ...]
    figures: Mapping[str, Mean]
    train_seconds: float
    """Mean over seeds, as the trials' `train_seconds`."""
    budget: Mapping[str, int]
    skipped_steps: int
    """Over all seeds together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything that was found."""

    baseline: str
    judged_by: str
    figures: tuple[str, ...]
    """What trials were measured by, see `trial.figures_of`."""
    equal: str
    time_tolerance: float
    arms: Mapping[str, Arm]
    """Best first by the figure that decides; fewer is better of `FEWER_IS_BETTER`, more of all else."""
    against_baseline: Tests
    """Arm less baseline, over the seeds that both have; the baseline itself is not among them."""
    against_start: Tests
    """End less start of every arm; empty where trials start from scratch."""
    start: Mapping[str, float] | None
    phrases: int
    """Held-out phrases each trial was judged on."""
    unfinished: tuple[Unfinished, ...]
    device: str

    def as_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**dataclasses.asdict(self), "correction": "Holm (1979) over the arms compared on one figure"}


def summarise(out: Path, baseline: str | None = None, time_tolerance: float | None = None) -> Summary:
    """Reads a sweep's folder and compares its arms.

    Args:
      out: the folder.
      baseline: another arm than the sweep's own.
      time_tolerance: another than the sweep's own.

    Raises:
      UserError: no sweep there, no finished trial of the baseline, or trials that cannot be compared.
    """
    judgement = read_sweep(out)
    if judgement.get("kind") != "grid":
        raise UserError(f"{out} holds a search, whose trials share no seeds: see {out / 'study.json'}")
    baseline = baseline or str(judgement["baseline"])
    tolerance = judgement["time_tolerance"] if time_tolerance is None else time_tolerance
    results, unfinished = read_results(out)
    if all(result.arm != baseline for result in results):
        arms = ", ".join(dict.fromkeys(result.arm for result in results)) or "none"
        open_trials = ", ".join(f"{one.name} {one.status}" for one in unfinished) or "none"
        raise UserError(
            f"{out}: no finished trial of the baseline {baseline!r} to compare with (arms with finished trials: "
            f"{arms}; trials without a result: {open_trials}); run it, or name another with --baseline"
        )
    refuse_unequal(results, baseline, judgement["equal"], tolerance)
    figures = figures_of(results[0].stage)
    compared = _arms(results, figures, judgement["judged_by"])
    return Summary(
        baseline=baseline, judged_by=judgement["judged_by"], figures=figures, equal=judgement["equal"],
        time_tolerance=tolerance, arms=compared, start=results[0].start,
        against_baseline=_against_baseline(results, figures, baseline, list(compared)),
        against_start=_against_start(results, figures, list(compared)),
        phrases=round(results[0].figures["n"]), unfinished=tuple(unfinished),
        device=", ".join(dict.fromkeys(result.device for result in results)),
    )  # fmt: skip


def _arms(results: Sequence[Result], figures: Sequence[str], judged_by: str) -> dict[str, Arm]:
    arms = {}
    for name in dict.fromkeys(result.arm for result in results):
        own = sorted((result for result in results if result.arm == name), key=lambda result: result.seed)
        arms[name] = Arm(
            seeds=tuple(result.seed for result in own),
            figures={figure: mean_over_seeds([result.figures[figure] for result in own]) for figure in figures},
            train_seconds=mean_over_seeds([result.train_seconds for result in own]).mean,
            budget=own[0].budget,
            skipped_steps=sum(result.skipped_steps for result in own),
        )
    sign = 1 if judged_by in FEWER_IS_BETTER else -1
    return dict(sorted(arms.items(), key=lambda item: sign * item[1].figures[judged_by].mean))


def _against_baseline(results: Sequence[Result], figures: Sequence[str], baseline: str, arms: Sequence[str]) -> Tests:
    by_name = {(result.arm, result.seed): result for result in results}
    tests: Tests = {}
    for figure in figures:
        of_figure = {}
        for arm in arms:
            differences = [
                result.figures[figure] - by_name[baseline, seed].figures[figure]
                for (one, seed), result in by_name.items()
                if one == arm != baseline and (baseline, seed) in by_name
            ]
            if differences:
                of_figure[arm] = paired_test(differences)
        tests[figure] = with_holm(of_figure)
    return tests


def _against_start(results: Sequence[Result], figures: Sequence[str], arms: Sequence[str]) -> Tests:
    if any(result.start is None for result in results):
        return {}
    tests: Tests = {}
    for figure in figures:
        gains: dict[str, list[float]] = {arm: [] for arm in arms}
        for result in results:
            assert result.start is not None, "trials from scratch were sorted out above"
            gains[result.arm].append(result.figures[figure] - result.start[figure])
        tests[figure] = with_holm({arm: paired_test(of_arm) for arm, of_arm in gains.items()})
    return tests
