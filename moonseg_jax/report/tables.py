"""The figures of runs as tables: held-out figures, baselines, what it cost, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moonseg_jax.progress import duration
from moonseg_jax.report.content import Table
from moonseg_jax.report.curves import is_number
from moonseg_jax.report.metric_names import place_of
from moonseg_jax.report.run_record import STAGES, RunRecord, Stage
from moonseg_jax.run_directory import flat_settings

FIGURES = {"miou": "mIoU", "ciou": "cIoU", "p50": "P@.5", "biou_2px": "boundary IoU, 2 px", "n": "phrases"}
"""Names of the metrics of one evaluation in `summary.json`, and their headings."""
SAMPLED = ("sampled_miou", "sampled mIoU")

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

OVER_THE_RUN = ("eval_miou", "eval_sampled_miou", "eval_ciou", "eval_p50", "eval_biou_2px", "eval_tokens")
"""Held-out figures of a training run, from its metrics."""
KNOWN = (*STAGES, "baselines", "wall_seconds", "peak_memory_gib", "command")
"""Entries of `summary.json` with a place of their own on the page."""
ABSENT = "–"


def summary_tables(run: RunRecord) -> tuple[Table, ...]:
    """What the summary says; of a run without one, how its held-out figures changed."""
    rows = [
        (f"{title}, {mask}", *(_figure(figures.get(name)) for name in (*FIGURES, SAMPLED[0])))
        for title, mask, figures in _judged(run)
    ]
    if rows:
        title = "Held-out scenes, greedy decoding; sampled mIoU is at temperature 1"
        return (Table(title=title, columns=("", *FIGURES.values(), SAMPLED[1]), rows=tuple(rows)),)
    return tuple(table for stage in run.stages if (table := _over_the_run(stage)))


def baselines_table(runs: Sequence[RunRecord], names: Sequence[str]) -> Table | None:
    """What trivial masks reach, of one run or of two."""
    baselines = [run.summary.get("baselines", {}) for run in runs]
    entries = dict.fromkeys(name for one in baselines for name in one)
    if not entries:
        return None
    values = {
        entry: [value.get("miou") if isinstance(value := one.get(entry), Mapping) else value for one in baselines]
        for entry in entries
    }
    return Table(
        title="What masks without understanding reach on the same scenes",
        columns=("", *(names if len(runs) > 1 else ("mIoU",))),
        rows=tuple((BASELINES.get(entry, entry.replace("_", " ")), *map(_figure, values[entry])) for entry in entries),
    )


def facts(run: RunRecord) -> Iterator[tuple[str, str]]:
    """What the summary says besides figures: time, memory, seed."""
    summary = run.summary
    if is_number(summary.get("wall_seconds")):
        yield "time", duration(summary["wall_seconds"])
    if is_number(summary.get("peak_memory_gib")):
        yield "peak memory", f"{summary['peak_memory_gib']:.2f} GiB"
    for name, value in summary.items():
        if name not in KNOWN and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            yield name.replace("_", " "), _figure(value) if isinstance(value, float) else str(value)


def difference_table(runs: tuple[RunRecord, RunRecord], names: tuple[str, str]) -> Table | None:
    """Held-out figures of two runs and the second's less the first's: those of their summaries, or else of the last
    evaluations of their stages; None where they share neither."""
    for title, figures in (("Held-out scenes", _summary_figures), ("Held-out scenes, last evaluation", _last_figures)):
        first, second = map(figures, runs)
        if first.keys() & second.keys():
            rows = tuple(
                (
                    name,
                    _figure(first.get(name)),
                    _figure(second.get(name)),
                    _difference(first.get(name), second.get(name)),
                )
                for name in dict.fromkeys((*first, *second))
            )
            return Table(title=title, columns=("", *names, "difference"), rows=rows)
    return None


def _summary_figures(run: RunRecord) -> dict[str, float]:
    headings = {**FIGURES, SAMPLED[0]: SAMPLED[1]}
    return {
        f"{title}, {mask}: {heading}": figures[name]
        for title, mask, figures in _judged(run)
        for name, heading in headings.items()
        if is_number(figures.get(name))
    }


def _last_figures(run: RunRecord) -> dict[str, float]:
    found = {}
    for stage in run.stages:
        for metric in OVER_THE_RUN:
            values = [row[metric] for row in stage.rows if is_number(row.get(metric))]
            if values:
                found[f"{stage.title}: {place_of(metric)[2]}"] = values[-1]
    return found


def cost_table(runs: Sequence[RunRecord], names: Sequence[str]) -> Table:
    """What two runs took: steps and time of every stage, and what their summaries say."""
    columns = []
    for run in runs:
        own = dict(facts(run))
        for stage in run.stages:
            if stage.rows:
                own[f"{stage.title}: steps"] = str(stage.rows[-1]["step"])
                own[f"{stage.title}: time"] = duration(float(stage.rows[-1].get("wall_seconds", 0.0)))
        columns.append(own)
    entries = dict.fromkeys(entry for own in columns for entry in own)
    rows = tuple((entry, *(own.get(entry, ABSENT) for own in columns)) for entry in entries)
    return Table(title="What they took", columns=("", *names), rows=rows)


def settings_table(first: RunRecord, second: RunRecord, names: tuple[str, str]) -> Table:
    """The settings in which two runs differ, by their dotted names: of stages that both have, and of the whole runs."""
    stages = {stage.title: stage.config for stage in second.stages}
    both = [(stage.title, stage.config, stages[stage.title]) for stage in first.stages if stage.title in stages]
    prefix = len(both) > 1
    rows: list[tuple[str, ...]] = []
    if first.kind == second.kind and not {first.kind} <= STAGES.keys():
        rows += _differing("", first.config, second.config)
    for title, one, other in both:
        rows += _differing(f"{title}: " if prefix else "", one, other)
    note = "" if rows else "The settings of what both ran are the same."
    return Table(title="", columns=("", *names), rows=tuple(rows), note=note)


def _differing(prefix: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, ...]]:
    before, after = flat_settings(dict(one)) if one else {}, flat_settings(dict(other)) if other else {}
    return [
        (prefix + name, *(str(own[name]) if name in own else ABSENT for own in (before, after)))
        for name in dict.fromkeys((*before, *after))
        if name not in before or name not in after or before[name] != after[name]
    ]


def _judged(run: RunRecord) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Stage, mask, and figures of its evaluation, those of samples with the coarse masks'."""
    for stage, title in STAGES.items():
        entry = run.summary.get(stage, {})
        for mask in ("coarse", "refined"):
            figures = entry.get(mask)
            if figures is not None:
                sampled = {SAMPLED[0]: entry.get(SAMPLED[0])} if mask == "coarse" else {}
                yield title, mask, {**figures, **sampled}


def _over_the_run(stage: Stage) -> Table | None:
    judged = [row for row in stage.rows if is_number(row.get(OVER_THE_RUN[0]))]
    if not judged:
        return None
    first, last = judged[0], judged[-1]
    rows = tuple(
        (
            place_of(metric)[2], _figure(first.get(metric)), _figure(last[metric]),
            _difference(first.get(metric), last[metric]),
        )
        for metric in OVER_THE_RUN
        if is_number(last.get(metric))
    )  # fmt: skip
    columns = ("", f"step {first['step']}", f"step {last['step']}", "change")
    return Table(title=f"{stage.title}: held-out scenes, greedy decoding", columns=columns, rows=rows)


def _difference(before: Any, after: Any) -> str:
    if not (is_number(before) and is_number(after)):
        return ABSENT
    return f"{after - before:+.3f}" if isinstance(after - before, float) else f"{after - before:+d}"


def _figure(value: Any) -> str:
    if value is None:
        return ABSENT
    return f"{value:.3f}" if isinstance(value, float) else str(value)
