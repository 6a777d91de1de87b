"""The evidence of a sweep's refiners, by arm: means over seeds, for every source of coarse masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moonseg_jax.errors import UserError
from moonseg_jax.refiner_evidence.evidence import Evidence
from moonseg_jax.refiner_evidence.groups import Group
from moonseg_jax.report.content import Table
from moonseg_jax.run_directory import read_json
from moonseg_jax.sweep.folder import enrolled
from moonseg_jax.sweep.paired import mean_over_seeds

FILE = "evidence.md"
SHOWN = {"miou": "mIoU", "ciou": "cIoU", "biou_2px": "boundary IoU 2 px", "biou_2pct": "boundary IoU 2 %"}
OfArms = dict[str, list[Evidence]]
"""Arm → one for each finished seed."""


def sweep_evidence(out: Path) -> tuple[Table, ...]:
    """Tables of every source: each figure by iteration, by group, and what the refiners say and break.

    Args:
      out: folder of a sweep of refiners.

    Raises:
      UserError: a file of evidence is missing or broken; names it.
    """
    by_source: dict[str, OfArms] = {}
    for folder in enrolled(out):
        if folder.status != "finished":
            continue
        data = read_json(folder.evidence, missing=f"{folder.evidence} is missing: remove {folder.path}, run it again")
        for source, one in data.items():
            try:
                evidence = Evidence.from_data(one)
            except (KeyError, TypeError) as error:
                raise UserError(f"{folder.evidence} is broken ({error}): remove {folder.path}, run it again") from error
            arm = str(folder.record()["arm"])
            by_source.setdefault(source, {}).setdefault(arm, []).append(evidence)
    return tuple(table for source, arms in by_source.items() for table in _tables(source, arms))


def _tables(source: str, arms: OfArms) -> list[Table]:
    tables = [_by_iteration(source, arms, figure) for figure in SHOWN]
    return [*tables, _by_group(source, arms), _of_the_head(source, arms)]


def _by_iteration(source: str, arms: OfArms, figure: str) -> Table:
    first = next(iter(arms.values()))[0]
    steps = len(first.whole.iterations)
    rows = [
        (arm, *(_mean([getattr(one.whole.iterations[step], figure) for one in found]) for step in range(steps)))
        for arm, found in arms.items()
    ]
    flood = getattr(first.whole.flood_fill, figure)
    return Table(
        title=f"{SHOWN[figure]} by iteration, {first.n} coarse masks ({source})",
        columns=("pairs of", "coarse", *(str(step) for step in range(1, steps))),
        rows=tuple(rows),
        note=f"Mean ± standard error over seeds. Flood fill of the same masks: {flood:.3f}.",
    )


def _by_group(source: str, arms: OfArms) -> Table:
    groups = next(iter(arms.values()))[0].groups
    rows = []
    for index, group in enumerate(groups):
        cells = [_mean([_last(one.groups[index]) for one in found]) for found in arms.values()]
        rows.append((group.name, str(group.n), f"{group.iterations[0].biou_2px:.3f}", *cells))
    return Table(
        title=f"Boundary IoU 2 px by object size and by coarse IoU ({source})",
        columns=("", "masks", "coarse", *arms), rows=tuple(rows),
    )  # fmt: skip


def _last(group: Group) -> float:
    return group.iterations[-1].biou_2px


def _of_the_head(source: str, arms: OfArms) -> Table:
    rows = []
    for arm, found in arms.items():
        columns = (
            [one.worse[-1] for one in found], [one.identity_iou[-1] for one in found],
            [one.calibration.expected_error for one in found], [one.calibration.mean_error for one in found],
            [one.calibration.correlation for one in found],
        )  # fmt: skip
        rows.append((arm, *(_mean([value for value in column if value is not None]) for column in columns)))
    return Table(
        title=f"What the last iteration breaks, and what it says of itself ({source})",
        columns=("pairs of", "worse", "identity IoU", "calibration error", "predicted less true", "correlation"),
        rows=tuple(rows),
    )


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = mean_over_seeds(values)
    return f"{mean.mean:.3f}" + ("" if mean.standard_error is None else f" ± {mean.standard_error:.3f}")
