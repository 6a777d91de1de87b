"""Figures of cleaning as tables of text: one rule in detail, and dropping over thresholds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from moonseg_jax.clean.faults import LARGEST_IOU
from moonseg_jax.clean.measure import CleaningFigures, JudgedObject, figures_of
from moonseg_jax.clean.rule import Rule
from moonseg_jax.report.content import Table

AGREEMENTS, STAYS, PHRASE_IOUS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95), (0.4, 0.5, 0.6, 0.7, 0.8), (0.1, 0.3, 0.5, 0.7)
"""Thresholds that are looked at."""


def rules_around(rule: Rule, *, asked: bool) -> list[Rule]:
    """The rule, nothing dropped, each threshold alone at several values, and agreement at the other thresholds.

    Args:
      rule: the one that is used.
      asked: whether a policy was asked for the phrases; without, its threshold means nothing.
    """
    none = Rule(min_agreement=0.0, min_stay=0.0, min_phrase_iou=0.0)
    rules = [rule, none]
    rules += [dataclasses.replace(none, min_agreement=least) for least in AGREEMENTS]
    rules += [dataclasses.replace(none, min_stay=least) for least in STAYS]
    rules += [dataclasses.replace(none, min_phrase_iou=least) for least in PHRASE_IOUS if asked]
    rules += [dataclasses.replace(rule, min_agreement=least) for least in AGREEMENTS]
    rules += [dataclasses.replace(rule, min_stay=least) for least in STAYS]
    return list(dict.fromkeys(rules))


def closeness_table(figures: CleaningFigures) -> Table:
    """Annotations and kept masks against the truth."""
    rows = (
        ("annotations, all", figures.objects, figures.annotated_miou, figures.annotated_boundary),
        ("annotations of the kept", figures.kept, figures.before_miou, figures.before_boundary),
        ("kept masks", figures.kept, figures.kept_miou, figures.kept_boundary),
    )
    recalls = ", ".join(f"{kind} {_figure(value)}" for kind, value in figures.recall_by_fault.items())
    return Table(
        title="Closeness to the exact truth",
        columns=("", "objects", "mIoU", "boundary IoU 2 px"),
        rows=tuple((name, str(count), _figure(miou), _figure(boundary)) for name, count, miou, boundary in rows),
        note=f"Kept masks gain {_gain(figures.gain_miou)} mIoU and {_gain(figures.gain_boundary)} boundary IoU over "
        "their annotations (mean and standard error). "
        f"At least as close as their annotation: {_figure(figures.improved)} of the kept masks. Recall of "
        f"dropping by kind of wrong annotation: {recalls}.",
    )


def threshold_table(judged: Sequence[JudgedObject], rules: Sequence[Rule], *, asked: bool) -> Table:
    """What each rule keeps, and how well it drops what is wrong; the first is the one that is used."""
    rows = []
    for number, rule in enumerate(rules):
        found = figures_of(judged, rule)
        thresholds = [rule.min_agreement, rule.min_stay, *([rule.min_phrase_iou] if asked else [])]
        rows.append(
            (
                "used" if number == 0 else "", *(f"{value:g}" if value else "–" for value in thresholds),
                f"{found.kept / found.objects:.3f}", _figure(found.kept_miou), _figure(found.kept_boundary),
                _figure(found.wrong_annotations.precision), _figure(found.wrong_annotations.recall),
                _figure(found.wrong_masks.precision), _figure(found.wrong_masks.recall),
            )
        )  # fmt: skip
    some = figures_of(judged, rules[0])
    return Table(
        title="Dropping over thresholds",
        columns=(
            "", "agreement", "stay", *(["phrase"] if asked else []), "kept", "mIoU of kept",
            "boundary IoU 2 px of kept", "precision, annotations", "recall, annotations", "precision, masks",
            "recall, masks",
        ),
        rows=tuple(rows),
        note=f"Precision and recall of dropping {some.wrong_annotations.wrong} annotations that were made wrong, and "
        f"{some.wrong_masks.wrong} masks whose IoU with the truth is below {LARGEST_IOU:g}, of {some.objects} objects.",
    )  # fmt: skip


def _gain(value: tuple[float, float] | None) -> str:
    return "–" if value is None else f"{value[0]:+.3f} ± {value[1]:.3f}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
