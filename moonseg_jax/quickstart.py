"""The whole method in one command: data, RL from the shipped policy, refiner on its rollouts, before and after."""

from __future__ import annotations

import dataclasses
import json
import resource
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_pipelines.build import build_shapes
from data_pipelines.source import open_split
from moonseg_jax.compilation import compiled_programs
from moonseg_jax.config_file import load_config
from moonseg_jax.evaluate import held_out_scenes
from moonseg_jax.gallery.keep import keep_scenes
from moonseg_jax.judge import Judgement, judge
from moonseg_jax.report.run import write_run_report
from moonseg_jax.run_directory import RunDirectory, write_json
from moonseg_jax.shipped import shipped
from moonseg_jax.train import run_refiner, run_rl, run_sft
from moonseg_jax.train_config import LoopConfig

RECIPE = Path("experiments/shapes_tiny.py")
DATA_SEED = 1_000
"""Added to the run's seed: scenes of a quickstart are none of those the shipped policy was trained on."""
TRAIN_SCENES, HELD_OUT_SCENES, HELD_OUT_UNSEEN_SCENES = 4_000, 500, 100
PHRASES_JUDGED = 2
"""Phrases judged per held-out scene."""
USUAL_MINUTES = 10.0
"""The stages' step counts in `experiments/shapes_tiny.py` suit a quickstart of so many minutes."""


def quickstart(*, out: Path, seed: int, minutes: float, from_scratch: bool) -> None:
    """Runs all stages and writes `summary.json`, `report.html` and weights into `out`.

    Args:
      out: folder of the run.
      seed: of data, sampling and initial weights.
      minutes: scales the training stages; 10 is what the figures in the README are taken with.
      from_scratch: train the supervised policy too.

    Raises:
      UserError: the folder holds another run or cannot be written.
    """
    console, started = Console(stderr=True), time.monotonic()
    settings = {"seed": seed, "minutes": minutes, "from_scratch": from_scratch}
    run = RunDirectory.create(out, "quickstart", json.dumps(settings), resumable=False)
    scale = minutes / USUAL_MINUTES

    console.rule("1. embedded data")
    data = out / "data"
    build_shapes(
        data, train=TRAIN_SCENES, val=HELD_OUT_SCENES, val_unseen=HELD_OUT_UNSEEN_SCENES, seed=DATA_SEED + seed
    )  # fmt: skip
    scenes = held_out_scenes(open_split(data, "val", at_least=HELD_OUT_SCENES), HELD_OUT_SCENES)

    start = shipped("sft")
    if from_scratch:
        console.rule("2a. supervised learning from scratch")
        sft = _scaled(load_config(RECIPE, "sft"), data, seed, scale)
        run_sft(sft, _stage(out, "sft", sft), False)
        start = out / "sft" / "best"
    before = judge(start, None, scenes, phrases=PHRASES_JUDGED, seed=seed)

    console.rule("2. reinforcement learning on mask IoU")
    rl = dataclasses.replace(_scaled(load_config(RECIPE, "rl"), data, seed, scale), start_from=str(start))
    run_rl(rl, _stage(out, "rl", rl), False)

    console.rule("3. refiner on the rollouts of that stage")
    refiner = dataclasses.replace(
        _scaled(load_config(RECIPE, "refiner"), data, seed, scale),
        policy=str(out / "rl" / "last"), pairs=str(out / "rl" / "pairs.npz"),
    )  # fmt: skip
    run_refiner(refiner, _stage(out, "refiner", refiner), False)

    console.rule("4. held-out evaluation")
    after = judge(
        out / "rl" / "last",
        out / "refiner" / "last",
        scenes,
        phrases=PHRASES_JUDGED,
        seed=seed,
        baselines=True,
    )
    summary = {
        "sft": {"coarse": before.coarse, "sampled_miou": before.sampled_miou},
        "rl": {"coarse": after.coarse, "refined": after.refined, "sampled_miou": after.sampled_miou},
        "baselines": after.baselines,
        "statuses": after.statuses,
        "wall_seconds": time.monotonic() - started,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "compiled_programs": compiled_programs(),
        "seed": seed,
        "command": f"moonseg quickstart --seed {seed} --minutes {minutes:g}"
        + (" --from-scratch" if from_scratch else ""),
    }
    write_json(run.path / "summary.json", summary)
    keep_scenes(out, after.gallery)
    report = write_run_report(out)
    console.print(_table(before, after))
    console.print(f"report   {report}\nsummary  {out / 'summary.json'}\nweights  {out}/rl/last, {out}/refiner/last")


def _scaled(config: Any, data: Path, seed: int, scale: float) -> Any:
    """The config on this data and seed, with step counts scaled."""

    def steps(count: int) -> int:
        return max(round(count * scale), 2)

    changes: dict[str, Any] = {"data": str(data), "seed": seed, "steps": steps(config.steps)}
    if hasattr(config, "box_steps"):
        changes["box_steps"] = round(config.box_steps * scale)
    return dataclasses.replace(config, **changes, checkpoint_every=changes["steps"])


def _stage(out: Path, name: str, config: LoopConfig) -> RunDirectory:
    return RunDirectory.create(out / name, name, json.dumps(dataclasses.asdict(config)), resumable=False)


def _table(before: Judgement, after: Judgement) -> Table:
    assert after.refined is not None, "the quickstart always refines"
    table = Table(title=f"{after.coarse['n']} phrases on {HELD_OUT_SCENES} held-out scenes")
    for column in ("", "mIoU", "cIoU", "P@.5", "boundary IoU 2 px", "sampled mIoU (T = 1)"):
        table.add_column(column)
    rows = [
        ("supervised, coarse", before.coarse, before.sampled_miou),
        ("after RL, coarse", after.coarse, after.sampled_miou),
        ("after RL, refined", after.refined, None),
    ]
    for name, figures, sampled in rows:
        cells = [f"{figures[key]:.3f}" for key in ("miou", "ciou", "p50", "biou_2px")]
        table.add_row(name, *cells, "" if sampled is None else f"{sampled:.3f}")
    return table
