"""From a run's folder or a file of rollouts to `compare.json` and `compare.html`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from moonseg_jax.errors import UserError
from moonseg_jax.reward_compare.comparison import Comparison, as_data, chosen_shapes, compare
from moonseg_jax.reward_compare.page import comparison_page
from moonseg_jax.rewards import RewardSpec
from moonseg_jax.rollout.stored import StoredRollouts, load_rollouts
from moonseg_jax.run_directory import CONFIG_FILE, read_json, write_json
from moonseg_jax.sweep.sweep_file import load_sweep, reward_shapes_of

JSON_FILE, PAGE_FILE = "compare.json", "compare.html"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """What was written, and what it says."""

    comparison: Comparison
    stored: StoredRollouts
    json: Path
    page: Path


def compare_rewards(
    path: Path,
    names: tuple[str, ...] = (),
    *,
    sweep: Path | None = None,
    out: Path | None = None,
    step: int | None = None,
) -> Compared:
    """Scores stored rollouts under reward shapes and writes what came of it.

    Args:
      path: folder of an RL run that kept rollouts, or a file of rollouts.
      names: shapes; none for all that have a name, or for the sweep's alone. Plain IoU and a run's own reward are
        always among them.
      sweep: config file whose arms' rewards are compared.
      out: folder for both files, made if missing; beside the rollouts by default.
      step: where schedules stand; None for the steps at which the rollouts were sampled.

    Raises:
      UserError: no rollouts there, a file that is none, an unknown shape, a config file without sweep, or a
        folder that cannot be written.
    """
    arms = reward_shapes_of(load_sweep(sweep)) if sweep is not None else None
    shapes = chosen_shapes(names, _own_reward(path), arms)
    stored = load_rollouts(path)
    folder = out or (path if path.is_dir() else path.parent)
    _make_writable(folder)
    comparison = compare(stored, shapes, step)
    write_json(folder / JSON_FILE, {"rollouts": str(path), **as_data(comparison, stored, step)})
    page = comparison_page(comparison, stored, path.name if path.is_dir() else f"{path.parent.name}/{path.name}")
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")
    return Compared(comparison=comparison, stored=stored, json=folder / JSON_FILE, page=folder / PAGE_FILE)


def _own_reward(path: Path) -> RewardSpec | None:
    """The reward a run was paid with, where it is none that has a name."""
    if not (path / CONFIG_FILE).is_file():
        return None
    config = read_json(path / CONFIG_FILE, missing="").get("config")
    reward = config.get("reward") if isinstance(config, dict) else None
    return RewardSpec.from_data(reward) if isinstance(reward, dict) else None


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"--out {folder} cannot be a folder, a file is in the way: name another") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write in {folder}: name another folder with --out")
