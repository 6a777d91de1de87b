"""Figures as a table, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from moonseg_jax.metrics import THRESHOLDS

COLUMNS = {
    "mIoU": "miou", "cIoU": "ciou", **{f"P@.{round(10 * least)}": f"p{round(100 * least)}" for least in THRESHOLDS},
    "bIoU 2px": "biou_2px", "bIoU 2%": "biou_2pct", "F": "f", "J&F": "jf",
}  # fmt: skip
"""Heading → figure."""
TRIVIAL = {
    "box filled": "filled_box", "ellipse in the box": "ellipse", "convex hull": "hull",
    "flood fill from the outline": "flood_fill", "another object": "other_object", "any object": "any_object",
}  # fmt: skip
"""Row → baseline."""


def figures_table(metrics: Mapping[str, Any]) -> Table:
    """All figures of one evaluation, a row each: stages, sizes, sampled paths, baselines.

    Args:
      metrics: what `summarise` gives.
    """
    table = Table(box=box.MARKDOWN)
    table.add_column("", no_wrap=True)
    for heading in (*COLUMNS, "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in ("coarse", "refined"):
        if stage in metrics:
            found = metrics[stage]
            table.add_row(stage, *_cells(found))
            for size, of_size in found["by_size"].items():
                table.add_row(f"{stage}, {size}", *_cells(of_size))
    if "sampled_miou" in metrics:
        table.add_row("sampled at T = 1", figure(metrics["sampled_miou"]))
    for name, key in TRIVIAL.items():
        if key in metrics["baselines"]:
            table.add_row(name, figure(metrics["baselines"][key]))
    return table


def remarks(metrics: Mapping[str, Any]) -> list[str]:
    """What does not fit into the table: intervals, answers to phrases without target, classes, statuses."""
    lines = []
    for stage in ("coarse", "refined"):
        if stage not in metrics:
            continue
        found = metrics[stage]
        spans = (f"{name} {figure(low)} to {figure(high)}" for name, (low, high) in _intervals(found))
        lines.append(f"{stage}: 95 % {', '.join(spans)}; {found['empty']} empty masks")
        if "n_acc" in found:
            with_target = f", T-acc {figure(found['t_acc'])}" if "t_acc" in found else ""
            lines.append(f"{stage}: N-acc {figure(found['n_acc'])}{with_target}")
        if "class_miou" in found:
            lines.append(f"{stage}: mean over {found['classes']} classes {figure(found['class_miou'])} mIoU")
    lines += [f"{count} {status}" for status, count in metrics["statuses"].items()]
    return lines


def figure(value: float) -> str:
    """Three decimals without a leading zero: `.512`."""
    text = f"{value:.3f}"
    return text.removeprefix("0") if value >= 0 else text


def _intervals(found: Mapping[str, Any]) -> list[tuple[str, tuple[float, float]]]:
    names = {"miou": "mIoU", "ciou": "cIoU"}
    return [(names[key], interval) for key, interval in found["intervals"].items()]


def _cells(found: Mapping[str, Any]) -> list[str]:
    return [*(figure(found[key]) for key in COLUMNS.values()), str(found["n"])]
