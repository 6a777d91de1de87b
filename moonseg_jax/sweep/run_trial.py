"""One trial from its config to `result.json`: trained or gone on with, then judged on the whole held-out split."""

from __future__ import annotations

import statistics
import traceback
from pathlib import Path
from typing import Any

import jax

import moonseg_jax
from moonseg_jax.checkpoint import Checkpoints
from moonseg_jax.config_file import config_text
from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import METRICS_FILE, RunDirectory, read_metrics, write_json
from moonseg_jax.sweep.evaluation import start_figures, whole_split_figures
from moonseg_jax.sweep.fingerprint import data_fingerprint, start_fingerprint
from moonseg_jax.sweep.folder import TrialFolder
from moonseg_jax.sweep.refiner_evaluation import refiner_figures
from moonseg_jax.sweep.trial import Trial
from moonseg_jax.train import run_refiner, run_rl, run_sft
from moonseg_jax.train_config import LoopConfig, RefinerConfig, RlConfig, SftConfig

WEIGHTS = "last"
"""What is judged: the last averaged weights, so that nothing is chosen by held-out scenes."""


def run_trial(trial: Trial, folder: TrialFolder, out: Path, eval_phrases: int) -> dict[str, Any] | None:
    """Runs a trial that this process holds, and writes `result.json` or `error.txt`.

    Args:
      trial: what to run.
      folder: its folder; a run in it goes on from its last checkpoint.
      out: folder of the sweep.
      eval_phrases: phrases judged per held-out scene.

    Returns:
      The result; None where the trial failed.

    Raises:
      KeyboardInterrupt: the training loop was asked to stop, and has saved.
    """
    folder.error.unlink(missing_ok=True)
    try:
        result = _result(trial, folder, out, eval_phrases)
    # Whatever goes wrong in one trial must not stop the others; it is written down with its traceback.
    except Exception as error:
        reason = " ".join(str(error).split())
        text = f"{traceback.format_exc()}\n{type(error).__name__}: {reason}\n"
        folder.error.write_text(text, encoding="utf-8")
        return None
    finally:
        # The programs of this trial are of no use to the next and would pile up over a long sweep.
        jax.clear_caches()
    write_json(folder.result, result)
    return result


def _result(trial: Trial, folder: TrialFolder, out: Path, eval_phrases: int) -> dict[str, Any]:
    config = trial.config
    data, start_weights = data_fingerprint(config), start_fingerprint(config)
    # Before training, so that weights that cannot be judged are found out at once.
    start = None if isinstance(config, RefinerConfig) else start_figures(out, config, eval_phrases)
    run = _train(trial, folder)
    weights = run.path / WEIGHTS
    if isinstance(config, RefinerConfig):
        figures, start = refiner_figures(weights, config, eval_phrases, folder.evidence)
    else:
        figures = whole_split_figures(weights, config, eval_phrases)
    device = jax.devices()[0]
    rows = read_metrics(run.path / METRICS_FILE)
    return {
        "arm": trial.arm, "seed": config.seed, "stage": trial.stage,
        "figures": figures, "start": start,
        "budget": trial.budget, "data": data, "start_weights": start_weights,
        "judged": {"eval_phrases": eval_phrases, "crops": config.crops},
        "train_seconds": train_seconds(rows, config), "wall_seconds": run.wall_seconds,
        "skipped_steps": next(row["skipped_steps"] for row in reversed(rows) if "skipped_steps" in row),
        "device": f"{jax.device_count()} x {device.device_kind}", "version": moonseg_jax.__version__,
    }  # fmt: skip


def _train(trial: Trial, folder: TrialFolder) -> RunDirectory:
    """Trains to the last step, from the last checkpoint where there is one."""
    config, text = trial.config, config_text(trial.config)
    resume = folder.run.is_dir() and _has_checkpoint(folder.run)
    if resume:
        run = RunDirectory.resume(folder.run, trial.stage, text)
    else:
        if folder.run.is_dir():
            folder.discard_run()
        run = RunDirectory.create(folder.run, trial.stage, text)
    try:
        if isinstance(config, RefinerConfig):
            run_refiner(config, run, resume)
        elif isinstance(config, RlConfig):
            run_rl(config, run, resume)
        else:
            run_sft(config, run, resume)
    except UserError:
        run.withdraw()
        raise
    return run


def _has_checkpoint(run: Path) -> bool:
    checkpoints = Checkpoints(RunDirectory(run, "").checkpoints)
    try:
        return checkpoints.latest_step is not None
    finally:
        checkpoints.close()


def train_seconds(rows: list[dict[str, Any]], config: LoopConfig) -> float:
    """Seconds of training as if nothing else had been done: the median seconds per step, times the steps.

    The median leaves out compiling, evaluation and what an interruption cost; supervised runs count their box steps
    by themselves.

    Args:
      rows: the run's metrics.
      config: of the run.
    """
    box_steps = min(config.box_steps, config.steps) if isinstance(config, SftConfig) else 0
    seconds = 0.0
    for first, last in ((0, box_steps), (box_steps, config.steps)):
        timed = [row["seconds_per_step"] for row in rows if "seconds_per_step" in row and first < row["step"] <= last]
        seconds += (last - first) * statistics.median(timed) if timed else 0.0
    return seconds
