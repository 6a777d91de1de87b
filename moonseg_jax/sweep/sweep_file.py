"""Sweeps from config files: `sweep()` beside `get_config(stage)`, with settings changed on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from moonseg_jax.config_file import call_config, with_overrides
from moonseg_jax.errors import UserError
from moonseg_jax.rewards import RewardSpec
from moonseg_jax.sweep.trial import Sweep
from moonseg_jax.train_config import RlConfig


def load_sweep(path: Path, *, arms: Sequence[str] = (), overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a config file.

    Args:
      path: the file; `experiments/NAME.py` also names a shipped one.
      arms: only these and the baseline; all if empty.
      overrides: settings of every trial, as on a command line: `--data DIR --start-from DIR`.

    Raises:
      UserError: no such file, it fails or gives no sweep, an unknown arm, or a setting that a trial's config does not
        have or that cannot work.
    """
    path, sweep = call_config(path, "sweep")
    if not isinstance(sweep, Sweep):
        raise UserError(f"{path}: sweep() must return a Sweep, but returned a {type(sweep).__name__}")
    sweep = sweep.of_arms(arms)
    if not overrides:
        return sweep
    prog = f"moonseg sweep {path}"
    trials = tuple(
        dataclasses.replace(trial, config=with_overrides(trial.config, overrides, prog=prog)) for trial in sweep.trials
    )
    return dataclasses.replace(sweep, trials=trials)


def reward_shapes_of(sweep: Sweep) -> dict[str, RewardSpec]:
    """What the arms of a sweep are paid with, by arm; of arms with equal rewards the first, of supervised ones none."""
    shapes: dict[str, RewardSpec] = {}
    for trial in sweep.trials:
        if isinstance(trial.config, RlConfig) and trial.config.reward_spec not in shapes.values():
            shapes.setdefault(trial.arm, trial.config.reward_spec)
    return shapes
