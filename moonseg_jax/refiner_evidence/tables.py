"""Evidence as tables of text."""

from __future__ import annotations

from collections.abc import Mapping

from moonseg_jax.refiner_evidence.evidence import Evidence
from moonseg_jax.refiner_evidence.groups import Group, MaskFigures
from moonseg_jax.report.content import Table

COLUMNS = ("mIoU", "cIoU", "boundary IoU 2 px", "boundary IoU 2 %")


def evidence_tables(evidence: Evidence, source: str) -> tuple[Table, ...]:
    """Iterations, groups and calibration of one source.

    Args:
      evidence: what was measured.
      source: of the coarse masks, for the titles.
    """
    return _of_iterations(evidence, source), _of_groups(evidence, source), _of_calibration(evidence, source)


def markdown(table: Table) -> str:
    """A table as Markdown, its note below."""
    rules = ("---", *("---:" for _ in table.columns[1:]))
    lines = [f"| {' | '.join(row)} |" for row in (table.columns, rules, *table.rows)]
    return "\n".join([f"**{table.title}**", "", *lines, *(["", table.note] if table.note else []), ""])


def _of_iterations(evidence: Evidence, source: str) -> Table:
    whole = evidence.whole
    rows = [("coarse", *_cells(whole.iterations[0]), "", "")]
    for k, figures in enumerate(whole.iterations[1:]):
        identity = _figure(evidence.identity_iou[k]) if evidence.identity_iou else "–"
        rows.append((f"iteration {k + 1}", *_cells(figures), f"{evidence.worse[k]:.1%}", identity))
    rows.append(("flood fill", *_cells(whole.flood_fill), "", ""))
    statuses = ", ".join(f"{name} {count}" for name, count in evidence.statuses.items())
    return Table(
        title=f"Refinement of {whole.n} coarse masks ({source})",
        columns=("", *COLUMNS, "worse", "identity IoU"),
        rows=tuple(rows),
        note="Worse: share of masks that lost more than .01 IoU. Identity IoU: what is left of a ground truth that is "
        f"refined. Flood fill: of the colour under the coarse mask, at the best of several tolerances "
        f"({evidence.flood_tolerance:g}). Statuses: {statuses}.",
    )


def _of_groups(evidence: Evidence, source: str) -> Table:
    return Table(
        title=f"By object size and by coarse IoU ({source}), coarse → refined",
        columns=("", "masks", *COLUMNS, "flood fill, mIoU"),
        rows=tuple(_group_row(group) for group in evidence.groups),
    )


def _group_row(group: Group) -> tuple[str, ...]:
    pairs = zip(_cells(group.iterations[0]), _cells(group.iterations[-1]))
    changes = (f"{coarse} → {refined}" for coarse, refined in pairs)
    return group.name, str(group.n), *changes, _figure(group.flood_fill.miou)


def _of_calibration(evidence: Evidence, source: str) -> Table:
    found = evidence.calibration
    words: Mapping[str, float | None] = {
        "expected calibration error": found.expected_error, "predicted less true": found.mean_error,
        "correlation": found.correlation,
    }  # fmt: skip
    said = ", ".join(f"{name} {'–' if value is None else _figure(value)}" for name, value in words.items())
    return Table(
        title=f"Predicted against true IoU ({source})",
        columns=("predicted IoU", "masks", "mean predicted", "mean true"),
        rows=tuple(
            (f"{one.low:.1f}–{one.high:.1f}", str(one.n), _figure(one.predicted), _figure(one.true))
            for one in found.bins
        ),
        note=f"{found.n} refined masks: {said}.",
    )


def _cells(figures: MaskFigures) -> tuple[str, ...]:
    return tuple(_figure(value) for value in (figures.miou, figures.ciou, figures.biou_2px, figures.biou_2pct))


def _figure(value: float) -> str:
    return f"{value:.3f}"
