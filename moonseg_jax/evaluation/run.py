"""One evaluation from beginning to end: go on where the log stands, judge the rest, add up, write down."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from moonseg_jax.errors import UserError
from moonseg_jax.evaluation.answers import Answerer
from moonseg_jax.evaluation.folder import open_folder, withdraw
from moonseg_jax.evaluation.held_out import HeldOut, open_held_out
from moonseg_jax.evaluation.judging import Record, judge_answer
from moonseg_jax.evaluation.rows import blocks, read_ahead, row_phrases, rows
from moonseg_jax.evaluation.sample_log import SAMPLES_FILE, SampleLog, merge_logs, share_file
from moonseg_jax.evaluation.settings import EvalSettings
from moonseg_jax.evaluation.summary import summarise
from moonseg_jax.evaluation.table import figures_table, remarks
from moonseg_jax.evaluation.weights_digest import weights_digest
from moonseg_jax.predict import find_weights
from moonseg_jax.processes import wait_for_all
from moonseg_jax.progress import Progress
from moonseg_jax.run_directory import write_json
from moonseg_jax.status import UNSAYABLE
from moonseg_jax.weights import POLICY, REFINER

METRICS_FILE, TABLE_FILE = "metrics.json", "table.md"
TABLE_WIDTH = 140


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings with all that follows from them."""

    settings: EvalSettings
    policy: Path
    refiner: Path | None
    held_out: HeldOut

    @property
    def is_thorough(self) -> bool:
        """Whether samples at T = 1 and flood fills are judged too."""
        return self.settings.thorough or self.held_out.embedded

    def config(self, shares: int) -> dict[str, Any]:
        """What an evaluation is a function of, as JSON."""
        asked = self.settings
        return {
            "checkpoint": {"folder": str(self.policy), "digest": weights_digest(self.policy, POLICY)},
            "refiner": None if self.refiner is None else {
                "folder": str(self.refiner), "digest": weights_digest(self.refiner, REFINER),
            },
            "data": self.held_out.described, "images": self.held_out.count, "phrases": self.held_out.phrases,
            "stage": asked.stage, "iterations": asked.iterations, "guard": asked.guard,
            "thorough": self.is_thorough, "seed": asked.seed,
            "batch": asked.batch, "refine_batch": asked.refine_batch, "processes": shares,
        }  # fmt: skip


def evaluate(settings: EvalSettings, out: Path, *, fresh: bool = False) -> dict[str, Any] | None:
    """Judges a split and writes `config.json`, `samples.jsonl`, `metrics.json` and `table.md`.

    An evaluation that was stopped goes on where its log ends. With several processes (`jax.distributed`) each judges
    every so many scenes into a log of its own in the same folder, and the first one adds up.

    Args:
      settings: what is asked for.
      out: folder, made if needed; empty, or of an evaluation with the same settings.
      fresh: remove the evaluation that is there.

    Returns:
      What `metrics.json` holds; None in all processes but the first.

    Raises:
      UserError: weights or data are missing or do not fit, or the folder holds something else; says what differs.
    """
    share, shares = jax.process_index(), jax.process_count()
    plan = make_plan(settings)
    config = plan.config(shares)
    if share == 0:
        open_folder(out, config, fresh=fresh)
    wait_for_all("the folder is open")
    try:
        iterations, seconds = judge_share(plan, out, share=share, shares=shares)
    except UserError:
        if share == 0:
            withdraw(out)
        raise
    wait_for_all("all is judged")
    if share:
        return None
    return add_up(plan, out, config, iterations=iterations, seconds=seconds)


def make_plan(settings: EvalSettings) -> Plan:
    """Finds weights and data.

    Raises:
      UserError: they are missing, or the settings contradict each other.
    """
    policy, refiner = find_weights(
        settings.checkpoint, settings.refiner, refine=settings.stage != "coarse", iterations=settings.iterations
    )
    return Plan(settings=settings, policy=policy, refiner=refiner, held_out=open_held_out(settings))


def judge_share(plan: Plan, out: Path, *, share: int, shares: int) -> tuple[int, float]:
    """Judges what is left of one process's scenes; every sample is a line of its log before the next block begins.

    Args:
      plan: of the evaluation.
      out: its folder.
      share: number of the process.
      shares: number of processes.

    Returns:
      Iterations of the refiner, and the seconds that this share has taken, earlier sittings included.
    """
    asked, held_out = plan.settings, plan.held_out
    answerer = Answerer(
        plan.policy, plan.refiner, batch=asked.batch, phrases=row_phrases(held_out.phrases),
        refine_batch=asked.refine_batch, iterations=asked.iterations, guard=asked.guard,
        sample_seed=asked.seed if plan.is_thorough else None,
    )  # fmt: skip
    judge = functools.partial(judge_answer, is_refined=plan.refiner is not None, with_flood_fill=plan.is_thorough)
    with SampleLog(share_file(out, share, shares)) as log, ThreadPoolExecutor() as judges:
        standing = log.standing
        started, count, iou_sum = time.monotonic() - standing.seconds, standing.count, standing.iou_sum
        done = 0 if standing.after is None else standing.after.scene
        ahead = read_ahead(blocks(rows(held_out, share=share, shares=shares, after=standing.after), answerer.rows))
        with Progress("images", held_out.count, start=done, enabled=share == 0) as progress:
            if count:
                progress.note(f"going on after {count} phrases")
            try:
                for block in ahead:
                    records = list(judges.map(judge, answerer(block)))
                    if not count:
                        _refuse_foreign_words(records, answerer)
                    log.append(records, time.monotonic() - started)
                    count += len(records)
                    iou_sum += sum(record.final.iou for record in records)
                    progress.update(block[-1].first.scene + 1, {"mIoU": iou_sum / count})
            except KeyboardInterrupt:
                progress.note(f"stopped after {count} phrases; the same command goes on from there")
                raise
            if answerer.unsayable is not None:
                progress.note(f"phrases that cannot be said count as empty masks; the first: {answerer.unsayable}")
        return answerer.iterations, time.monotonic() - started


def _refuse_foreign_words(records: Sequence[Record], answerer: Answerer) -> None:
    """Refuses a data set of whose first phrases the vocabulary can say none."""
    if all(record.final.status == UNSAYABLE for record in records):
        raise UserError(
            f"the policy's vocabulary can say none of the first {len(records)} phrases ({answerer.unsayable}): judge a "
            "checkpoint that knows the words of this data set"
        )


def add_up(plan: Plan, out: Path, config: dict[str, Any], *, iterations: int, seconds: float) -> dict[str, Any]:
    """Merges the logs of all processes and writes the figures."""
    shares = config["processes"]
    if shares > 1:
        merge_logs([share_file(out, share, shares) for share in range(shares)], out / SAMPLES_FILE)
    metrics = summarise(
        out / SAMPLES_FILE, stage=plan.settings.stage, seed=plan.settings.seed,
        phrases_are_classes=plan.held_out.phrases_are_classes,
    )  # fmt: skip
    metrics |= {"iterations": iterations, "seconds": round(seconds, 1), "config": config}
    write_json(out / METRICS_FILE, metrics)
    with (out / TABLE_FILE).open("w", encoding="utf-8") as file:
        print_figures(metrics, Console(file=file, width=TABLE_WIDTH))
    return metrics


def print_figures(metrics: dict[str, Any], console: Console) -> None:
    """The table and what does not fit into it."""
    data = metrics["config"]["data"]
    first = metrics.get("refined") or metrics["coarse"]
    title = f"{first['n']} phrases on {metrics['config']['images']} images of {data['name']}, split {data['split']}"
    console.print(f"**{title}**\n", markup=False, highlight=False, soft_wrap=True)
    console.print(figures_table(metrics))
    for line in remarks(metrics):
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)
