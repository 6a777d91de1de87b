"""The comparison as one self-contained HTML page: tables, and outlines whose order a shape turns round."""

from __future__ import annotations

from html import escape

import jax
import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.paths.raster import coverage
from moonseg_jax.report.content import Table
from moonseg_jax.report.page import document, overlay_legend, table_html
from moonseg_jax.report.scene import overlay, panel, path_drawing
from moonseg_jax.reward_compare.comparison import Comparison, Contradiction
from moonseg_jax.reward_compare.scoring import edges_of
from moonseg_jax.rewards.shapes import SHAPES
from moonseg_jax.rollout.stored import StoredRollouts

_coverage = jax.jit(coverage, static_argnames="size")
COLUMNS = ("shape", "rank corr.", "sign flips", "spread", "flat groups", "mean", "open to")
NOTES = (
    "Rank correlation (Spearman) and sign flips are of leave-one-out advantages, against plain IoU, over the groups "
    "that are not flat in raw IoU. A sample whose sign flips is encouraged by one reward and discouraged by the other. "
    "Spread is the mean standard deviation of the reward within a group; a group is flat if all its samples earn the "
    "same, so that it teaches nothing."
)


def figure(value: float | None) -> str:
    """Three places; a dash for none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.3f}"


def share(value: float | None) -> str:
    """Per cent; a dash for none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.1%}"


def shape_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row of text for every shape, under `COLUMNS`."""
    baseline = next(iter(comparison.shapes))
    rows: list[tuple[str, ...]] = []
    for name, figures in comparison.figures.items():
        pair = None if name == baseline else comparison.pair(baseline, name)
        is_named = name in SHAPES and SHAPES[name].spec == comparison.shapes[name]
        hacks = ", ".join(SHAPES[name].hacks).replace("_", " ") if is_named else "not tested"
        beside = ("–", "–") if pair is None else (figure(pair.rank_correlation), share(pair.sign_flips))
        within = (figure(figures.spread), share(figures.flat_groups), figure(figures.mean))
        rows.append((name, *beside, *within, hacks or "none known"))
    return rows


def comparison_page(comparison: Comparison, stored: StoredRollouts, title: str) -> str:
    """The whole page as HTML.

    Args:
      comparison: what was found.
      stored: the rollouts it was found on.
      title: what they are, for people.
    """
    subtitle = f"{len(stored)} groups of {stored.group} rollouts, {comparison.learned} of them not flat in raw IoU"
    left_out = f"; {comparison.not_finite} with a reward that is not a number" if comparison.not_finite else ""
    against_iou = Table(title="Against plain IoU", columns=COLUMNS, rows=tuple(shape_rows(comparison)), note=NOTES)
    sections = [
        ("shapes", "Shapes", table_html(against_iou)),
        ("examples", "Where they disagree", _examples(comparison, stored)),
        ("pairs", "All pairs", _matrix(comparison)),
    ]
    return document(f"Reward shapes on {title}", subtitle + left_out, sections)


def _matrix(comparison: Comparison) -> str:
    names = list(comparison.shapes)
    if len(names) < 3:
        return ""

    def cell(first: str, second: str) -> str:
        return "" if first == second else figure(comparison.pair(first, second).rank_correlation)

    rows = tuple((first, *(cell(first, second) for second in names)) for first in names)
    return table_html(Table(title="Rank correlation of advantages", columns=("", *names), rows=rows))


def _examples(comparison: Comparison, stored: StoredRollouts) -> str:
    if not comparison.contradictions:
        return '<p class="note">No shape turns the order of two samples round.</p>'
    cards: dict[str, list[str]] = {}
    for one in comparison.contradictions:
        cards.setdefault(one.shape, []).append(_card(one, comparison, stored))
    bodies = "".join(
        f'<h3>{escape(name)}</h3><div class="scenes">{"".join(of_shape)}</div>' for name, of_shape in cards.items()
    )
    note = (
        '<p class="note">Two rollouts for one phrase: plain IoU prefers the left one, the shape the right one. '
        "Drawn on the square that rewards are counted on.</p>"
    )
    return overlay_legend() + note + bodies


def _card(one: Contradiction, comparison: Comparison, stored: StoredRollouts) -> str:
    panels = []
    for preferred_by, sample in ((next(iter(comparison.shapes)), one.by_iou), (one.shape, one.by_shape)):
        place = one.group, sample
        said = (
            f"{escape(preferred_by)} prefers this: IoU {comparison.iou[place]:.3f}, {escape(one.shape)} "
            f"{comparison.rewards[one.shape][place]:.3f}, {stored.lengths[place]} tokens"
        )
        mask, polygons = _drawn(stored, one.group, sample)
        over = overlay(mask, stored.truth[one.group], "mask")
        panels.append(panel(said, over + path_drawing(polygons), "" if mask.any() else "empty mask"))
    return (
        f'<article class="scene" style="--shape:1"><h3>example {stored.example_ids[one.group]}, '
        f"step {stored.steps[one.group]}</h3>"
        f'<div class="panels" style="grid-template-columns:1fr 1fr">{"".join(panels)}</div></article>'
    )


def _drawn(
    stored: StoredRollouts, group: int, sample: int
) -> tuple[Bool[np.ndarray, "R R"], list[Float[np.ndarray, "V 2"]]]:
    """The mask as it was scored, and the outlines."""
    row = slice(group * stored.group + sample, group * stored.group + sample + 1)
    edges = jax.tree.map(lambda leaf: leaf[row], edges_of(stored))
    mask = np.asarray(_coverage(edges, size=stored.truth.shape[-1]))[0] > 0.5
    points, valid, subpath = (np.asarray(leaf)[0] for leaf in (edges.points, edges.valid, edges.subpath))
    return mask, [points[valid & (subpath == number), 0] for number in np.unique(subpath[valid])]
