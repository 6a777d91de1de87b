"""What a run left in its folder, read and checked once: files only, nothing worked out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moonseg_jax.errors import UserError
from moonseg_jax.gallery.keep import GALLERY
from moonseg_jax.gallery.scenes import GallerySection
from moonseg_jax.gallery.store import INDEX, load_gallery
from moonseg_jax.rollout.group_record import GROUPS_FILE
from moonseg_jax.run_directory import CONFIG_FILE, METRICS_FILE, SUMMARY_FILE, read_json, read_metrics

STAGES = {"sft": "Supervised", "rl": "Reinforcement learning", "refiner": "Refiner"}
"""Kinds of runs, and their headings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training: the run itself, or a folder in it."""

    title: str
    rows: list[dict[str, Any]]
    """Of `metrics.jsonl`."""
    config: dict[str, Any]
    groups: Path | None
    """File of groups of reinforcement learning, where there is one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as its folder has it."""

    path: Path
    kind: str
    version: str
    config: dict[str, Any]
    summary: dict[str, Any]
    stages: tuple[Stage, ...]
    gallery: tuple[GallerySection, ...]

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.name or str(self.path)


def read_run(run: Path) -> RunRecord:
    """Reads a run's folder.

    Args:
      run: A folder with any of `summary.json`, `metrics.jsonl` (also one folder down, per stage), `gallery/`,
        `groups.npz` and `config.json`.

    Raises:
      UserError: The folder does not exist or holds no run, or a file in it is broken.
    """
    summary, record = _read_if_there(run / SUMMARY_FILE), _read_if_there(run / CONFIG_FILE)
    kind, config = str(record.get("kind", "run")), record.get("config", {})
    stages = tuple(_stages(run, kind))
    if not summary and not record and not stages:
        raise UserError(f"{run} holds no run: no {SUMMARY_FILE}, {CONFIG_FILE} or {METRICS_FILE} in it")
    for name in (*STAGES, "baselines"):
        if not isinstance(summary.get(name, {}), dict):
            raise UserError(f"{run / SUMMARY_FILE}: {name!r} is not an object; remove it or the file")
    return RunRecord(
        path=run, kind=kind, version=str(record.get("version", "")), config=config, summary=summary, stages=stages,
        gallery=load_gallery(run / GALLERY) if (run / GALLERY / INDEX).is_file() else (),
    )  # fmt: skip


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path, missing="") if path.is_file() else {}


def _stages(run: Path, kind: str) -> Iterator[Stage]:
    if (run / METRICS_FILE).is_file():
        yield _stage(run, STAGES.get(kind, kind))
    order = list(STAGES)
    inner = sorted(
        (file.parent for file in run.glob(f"*/{METRICS_FILE}")),
        key=lambda folder: (order.index(folder.name) if folder.name in order else len(order), folder.name),
    )
    for folder in inner:
        yield _stage(folder, STAGES.get(folder.name, folder.name))


def _stage(folder: Path, title: str) -> Stage:
    groups = folder / GROUPS_FILE
    return Stage(
        title=title,
        rows=read_metrics(folder / METRICS_FILE),
        config=_read_if_there(folder / CONFIG_FILE).get("config", {}),
        groups=groups if groups.is_file() else None,
    )
