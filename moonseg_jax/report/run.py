"""The report of a run, from what the run left in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moonseg_jax.errors import UserError
from moonseg_jax.progress import duration
from moonseg_jax.report.content import Curve, CurveGroup, Report, Series, Table
from moonseg_jax.report.page import write_report
from moonseg_jax.report.store import INDEX, load_gallery
from moonseg_jax.run_directory import CONFIG_FILE, METRICS_FILE, SUMMARY_FILE, read_json, read_metrics

GALLERY = "gallery"
REPORT_FILE = "report.html"

STAGES = {"sft": "Supervised", "rl": "Reinforcement learning", "refiner": "Refiner"}
FIGURES = {"miou": "mIoU", "ciou": "cIoU", "p50": "P@.5", "biou_2px": "boundary IoU, 2 px", "n": "phrases"}
"""Names of the metrics of one evaluation in `summary.json`, and their headings."""

BASELINES = {
    "other_object": "the true mask of another object of the scene",
    "any_object": "the true mask of any object: what ignoring the phrase earns",
    "filled_box": "the ground-truth box, filled",
    "coarse": "the coarse outline itself",
    "flood_fill": "flood fill of the colour under the coarse outline",
    "flood_fill_gain": "what the flood fill gains over the outline",
    "n": "samples",
}
"""Names under `baselines` in `summary.json`, and what they say; other names are shown as they are."""

TELLING = ("heldout", "eval", "sampled_miou", "miou", "iou", "reward", "loss", "entropy", "kl", "length")
"""Words in metric names, the most telling first: the order of the charts."""

KNOWN = (*STAGES, "baselines", "wall_seconds", "peak_memory_gib")
"""Entries of `summary.json` with a place of their own on the page."""


def write_run_report(run: Path) -> Path:
    """Writes `report.html` into the folder of a run.

    Args:
      run: A folder with any of `summary.json`, `metrics.jsonl` (also one folder down, per stage),
        `gallery/` and `config.json`.

    Returns:
      The page's path.

    Raises:
      UserError: The folder holds none of these, or one of them is broken.
    """
    return write_report(report_of_run(run), run / REPORT_FILE)


def report_of_run(run: Path) -> Report:
    """Gathers what a run left behind.

    Raises:
      UserError: The folder does not exist or holds no run, or a file in it is broken.
    """
    summary = _read_if_there(run / SUMMARY_FILE)
    record = _read_if_there(run / CONFIG_FILE)
    groups = tuple(_curve_group(title, file) for title, file in _metrics_files(run, record.get("kind", "")))
    if not summary and not record and not groups:
        raise UserError(f"{run} holds no run: no {SUMMARY_FILE}, {CONFIG_FILE} or {METRICS_FILE} in it")
    for name in (*STAGES, "baselines"):
        if not isinstance(summary.get(name, {}), dict):
            raise UserError(f"{run / SUMMARY_FILE}: {name!r} is not an object; remove it or the file")
    kind = str(record.get("kind", "run"))
    config = record.get("config", {})
    return Report(
        title=f"Masks from words: {STAGES.get(kind, kind).lower()}",
        subtitle=f"moonseg-jax {record.get('version', '')} · {run.name}",
        summary=_summary_table(summary),
        curves=groups,
        gallery=load_gallery(run / GALLERY) if (run / GALLERY / INDEX).is_file() else (),
        baselines=_baselines_table(summary.get("baselines", {})),
        facts=tuple(_facts(summary)),
        command=str(summary.get("command", "")),
        config=json.dumps(config, indent=2, ensure_ascii=False) if config else "",
    )


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path, missing="") if path.is_file() else {}


def _metrics_files(run: Path, kind: str) -> Iterator[tuple[str, Path]]:
    if (run / METRICS_FILE).is_file():
        yield STAGES.get(kind, kind or run.name), run / METRICS_FILE
    order = list(STAGES)
    stages = sorted(
        run.glob(f"*/{METRICS_FILE}"),
        key=lambda file: (order.index(file.parent.name) if file.parent.name in order else len(order), file),
    )
    for file in stages:
        yield STAGES.get(file.parent.name, file.parent.name), file


def _curve_group(title: str, file: Path) -> CurveGroup:
    rows = read_metrics(file)
    names = dict.fromkeys(
        name
        for row in rows
        for name, value in row.items()
        if _is_number(value) and name not in ("step", "wall_seconds")
    )
    ordered = sorted(names, key=_telling)
    return CurveGroup(title=title, curves=tuple(_curve(name, rows) for name in ordered))


def _telling(name: str) -> int:
    return next((rank for rank, word in enumerate(TELLING) if word in name.lower()), len(TELLING))


def _curve(name: str, rows: list[dict[str, Any]]) -> Curve:
    present = [row for row in rows if name in row]
    values = [float(row[name]) if _is_number(row[name]) else np.nan for row in present]
    steps = np.asarray([row["step"] for row in present], np.int64)
    return Curve(title=name, series=(Series(name=name, steps=steps, values=np.asarray(values, float)),))


def _summary_table(summary: Mapping[str, Any]) -> Table | None:
    rows = []
    for stage, title in STAGES.items():
        for mask in ("coarse", "refined"):
            figures = summary.get(stage, {}).get(mask)
            if figures is None:
                continue
            sampled = summary[stage].get("sampled_miou") if mask == "coarse" else None
            rows.append((f"{title}, {mask}", *(_figure(figures.get(name)) for name in FIGURES), _figure(sampled)))
    if not rows:
        return None
    return Table(
        title="Held-out scenes, greedy decoding; sampled mIoU is at temperature 1",
        columns=("", *FIGURES.values(), "sampled mIoU"),
        rows=tuple(rows),
    )


def _baselines_table(baselines: Mapping[str, Any]) -> Table | None:
    if not baselines:
        return None
    return Table(
        title="What masks without understanding reach on the same scenes",
        columns=("", "mIoU"),
        rows=tuple(
            (
                BASELINES.get(name, name.replace("_", " ")),
                _figure(value.get("miou") if isinstance(value, Mapping) else value),
            )
            for name, value in baselines.items()
        ),
    )


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if _is_number(summary.get("wall_seconds")):
        yield "time", duration(summary["wall_seconds"])
    if _is_number(summary.get("peak_memory_gib")):
        yield "peak memory", f"{summary['peak_memory_gib']:.2f} GiB"
    for name, value in summary.items():
        if name in KNOWN or name == "command":
            continue
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            yield name.replace("_", " "), _figure(value) if isinstance(value, float) else str(value)


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
