"""Two runs side by side: curves in the same charts, figures with their differences, the scenes that both kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

from moonseg_jax.errors import UserError
from moonseg_jax.gallery.scenes import GalleryItem
from moonseg_jax.report.content import PairedGallery, Report, ScenePair
from moonseg_jax.report.curves import Rows, curve_group, shared_metrics
from moonseg_jax.report.page import write_report
from moonseg_jax.report.run import config_text, groups_of, times_of
from moonseg_jax.report.run_record import RunRecord, read_run
from moonseg_jax.report.tables import baselines_table, cost_table, difference_table, settings_table


def write_report_beside(run: Path, other: Path, out: Path | None = None) -> Path:
    """Writes one page of two runs.

    Args:
      run: Folder of the first.
      other: Folder of the second; differences are its figures less the first's.
      out: The file; `beside-OTHER.html` in the first run's folder by default.

    Returns:
      The page's path.

    Raises:
      UserError: One of them is no run, both are the same, or they have nothing in common.
    """
    report = report_beside(run, other)
    return write_report(report, out or run / f"beside-{other.resolve().name}.html")


def report_beside(run: Path, other: Path) -> Report:
    """Gathers what two runs left behind.

    Raises:
      UserError: see `write_report_beside`.
    """
    if run.resolve() == other.resolve():
        raise UserError(f"{run} cannot stand beside itself: name another run with --beside")
    first, second = read_run(run), read_run(other)
    names = names_of(run, other)
    figures = difference_table((first, second), names)
    paired = _paired(first, second, names)
    stages = _stages(first, second, names)
    has_curves = any(len(runs) > 1 and shared_metrics(*runs.values()) for runs in stages.values())
    if figures is None and not has_curves and not (paired and paired.pairs):
        raise UserError(
            f"{run} ({first.kind}) and {other} ({second.kind}) have nothing in common: no metric of one stage, no "
            "held-out figure, no scene; name two runs of the same stage"
        )
    tables = (figures, cost_table((first, second), names))
    return Report(
        title=f"{names[0]} beside {names[1]}",
        subtitle=f"moonseg-jax · differences are {names[1]} less {names[0]}",
        summary=tuple(table for table in tables if table is not None and table.rows),
        paired=paired,
        groups=groups_of(first, f"{names[0]}: ") + groups_of(second, f"{names[1]}: "),
        curves=tuple(
            curve_group(title if len(runs) > 1 else f"{title}, {next(iter(runs))} only", runs)
            for title, runs in stages.items()
        ),
        time=times_of(first, f"{names[0]}: ") + times_of(second, f"{names[1]}: "),
        baselines=baselines_table((first, second), names),
        settings=settings_table(first, second, names),
        config=config_text({names[0]: first.config, names[1]: second.config}),
    )


def names_of(first: Path, second: Path) -> tuple[str, str]:
    """The shortest ends of two different paths that tell them apart."""
    ways = first.resolve().parts, second.resolve().parts
    for length in range(1, max(map(len, ways)) + 1):
        names = "/".join(ways[0][-length:]), "/".join(ways[1][-length:])
        if names[0] != names[1]:
            return names
    return str(first), str(second)


def _stages(first: RunRecord, second: RunRecord, names: tuple[str, str]) -> dict[str, dict[str, Rows]]:
    """Rows of every stage by run; a stage of one run alone has that run's alone."""
    stages: dict[str, dict[str, Rows]] = {}
    for name, run in zip(names, (first, second)):
        for stage in run.stages:
            stages.setdefault(stage.title, {})[name] = stage.rows
    return stages


def _paired(first: RunRecord, second: RunRecord, names: tuple[str, str]) -> PairedGallery | None:
    """Scenes of the same photo, phrase and ground truth; None where neither run kept any."""
    items = [{_key(item): item for section in run.gallery for item in section.items} for run in (first, second)]
    if not any(items):
        return None
    pairs = tuple(ScenePair(first=item, second=items[1][key]) for key, item in items[0].items() if key in items[1])
    kept = f"{names[0]} kept {len(items[0])} scenes and {names[1]} {len(items[1])}"
    in_both = f"{len(pairs)} of them are in both" if pairs else "none of them is in both"
    return PairedGallery(names=names, note=f"{kept}; {in_both}.", pairs=pairs)


def _key(item: GalleryItem) -> tuple[str, str]:
    pixels = hashlib.sha256(repr(item.image.shape).encode() + item.image.tobytes() + item.truth.tobytes())
    return item.phrase, pixels.hexdigest()
