"""The report of a run, from what the run left in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moonseg_jax.report.content import Groups, Report, TimeSplit
from moonseg_jax.report.curves import curve_group
from moonseg_jax.report.kept_groups import groups_of_run
from moonseg_jax.report.page import write_report
from moonseg_jax.report.run_record import STAGES, RunRecord, read_run
from moonseg_jax.report.tables import baselines_table, facts, summary_tables
from moonseg_jax.report.time_spent import time_spent

REPORT_FILE = "report.html"


def write_run_report(run: Path, out: Path | None = None) -> Path:
    """Writes the page of a run.

    Args:
      run: Its folder, see `read_run`.
      out: The file; `report.html` in the run's folder by default.

    Returns:
      The page's path.

    Raises:
      UserError: The folder holds no run, or a file in it is broken.
    """
    return write_report(report_of_run(run), out or run / REPORT_FILE)


def report_of_run(run: Path) -> Report:
    """Gathers what a run left behind.

    Raises:
      UserError: The folder does not exist or holds no run, or a file in it is broken.
    """
    record = read_run(run)
    return Report(
        title=f"Masks from words: {STAGES.get(record.kind, record.kind).lower()}",
        subtitle=f"moonseg-jax {record.version} · {record.name}",
        summary=summary_tables(record),
        gallery=record.gallery,
        groups=groups_of(record),
        curves=tuple(curve_group(stage.title, {record.name: stage.rows}) for stage in record.stages),
        time=times_of(record),
        baselines=baselines_table([record], [record.name]),
        facts=tuple(facts(record)),
        command=str(record.summary.get("command", "")),
        config=config_text(record.config),
    )


def groups_of(record: RunRecord, prefix: str = "") -> tuple[Groups, ...]:
    """The groups that the stages of a run kept; the prefix goes before their titles."""
    return tuple(
        groups_of_run(prefix + stage.title, stage.groups, stage.config) for stage in record.stages if stage.groups
    )


def times_of(record: RunRecord, prefix: str = "") -> tuple[TimeSplit, ...]:
    """Where the time of a run's stages went; the prefix goes before their titles."""
    found = (time_spent(prefix + stage.title, stage.rows) for stage in record.stages)
    return tuple(split for split in found if split is not None)


def config_text(config: Any) -> str:
    """A config for people; empty where there is none."""
    return json.dumps(config, indent=2, ensure_ascii=False) if config else ""
