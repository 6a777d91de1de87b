"""The whole held-out split, judged with given weights: at the end of a trial, and where it started."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.source import open_split
from moonseg_jax.evaluate import coarse_evaluation, held_out_scenes
from moonseg_jax.policy import load_policy
from moonseg_jax.run_directory import read_json
from moonseg_jax.storage import place
from moonseg_jax.sweep.fingerprint import data_fingerprint, fingerprint, start_fingerprint
from moonseg_jax.sweep.folder import STARTS, write_shared
from moonseg_jax.sweep.trial import FIGURES
from moonseg_jax.train_config import RlConfig, SftConfig

SAMPLING_SEED = 0
"""Of the one sample per phrase at T = 1: the same for all trials."""


def whole_split_figures(weights: Path, config: SftConfig | RlConfig, phrases: int) -> dict[str, float]:
    """`FIGURES` of a policy on every scene of the config's held-out split, and the count `n` of phrases.

    Args:
      weights: folder of policy weights.
      config: names model, data and split.
      phrases: judged per scene, the first ones.

    Raises:
      UserError: weights or data are missing or do not fit.
    """
    policy, params = load_policy(weights, config.model)
    source = open_split(config.data, config.eval_split)
    scenes = held_out_scenes(source, len(source))
    evaluate = coarse_evaluation(
        policy, scenes, phrases=phrases, crops=config.crops, sampled=True, seed=SAMPLING_SEED
    )  # fmt: skip
    figures = evaluate(params)
    return {name: float(figures[name]) for name in (*FIGURES, "n")}


def start_figures(out: Path, config: SftConfig | RlConfig, phrases: int) -> dict[str, float] | None:
    """The same for the policy that a trial starts from, measured once per sweep; None where it starts from scratch."""
    if config.start_from is None:
        return None
    judged = [start_fingerprint(config), data_fingerprint(config), phrases, config.crops]
    file = out / STARTS / f"{fingerprint(judged)}.json"
    if not file.is_file():
        write_shared(file, whole_split_figures(place(config.start_from), config, phrases))
    return read_json(file, missing="")
