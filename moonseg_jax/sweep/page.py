"""A summary on disk: `summary.json` for programs, `summary.html` for people."""

from __future__ import annotations

from pathlib import Path

from moonseg_jax.report.page import document, table_html
from moonseg_jax.run_directory import write_json
from moonseg_jax.sweep.plot import difference_plot
from moonseg_jax.sweep.summary import Summary
from moonseg_jax.sweep.tables import TITLES, mean_table, test_tables, unfinished_table

JSON_FILE, PAGE_FILE = "summary.json", "summary.html"


def write_summary(summary: Summary, out: Path) -> tuple[Path, Path]:
    """Writes both files into a sweep's folder and returns their paths."""
    write_json(out / JSON_FILE, summary.as_data())
    (out / PAGE_FILE).write_text(summary_page(summary, out.resolve().name), encoding="utf-8")
    return out / JSON_FILE, out / PAGE_FILE


def summary_page(summary: Summary, name: str) -> str:
    """The page as HTML: plots, tables, and what is missing."""
    unfinished = unfinished_table(summary)
    trials = sum(len(arm.seeds) for arm in summary.arms.values())
    judged = f"judged by {TITLES[summary.judged_by]}, baseline {summary.baseline}"
    same = "steps" if summary.equal == "steps" else f"seconds of training, within {summary.time_tolerance:.0%}"
    sections = [
        ("missing", "Missing", table_html(unfinished) if unfinished else ""),
        ("arms", "Arms", table_html(mean_table(summary))),
        ("plots", "Differences", _plots(summary)),
        ("tests", "Tests", "".join(table_html(table) for table in test_tables(summary))),
    ]
    subtitle = f"{trials} finished trials of {len(summary.arms)} arms, {judged}; equal {same}; {summary.device}"
    return document(f"Sweep {name}", subtitle, sections)


def _plots(summary: Summary) -> str:
    pairs = [(f"less {summary.baseline}", summary.against_baseline), ("less start", summary.against_start)]
    plots = [
        difference_plot(f"{TITLES[figure]} {against}", of_figure)
        for against, tests in pairs
        for figure, of_figure in tests.items()
        if of_figure
    ]
    return f'<div class="charts">{"".join(plots)}</div>' if plots else ""
