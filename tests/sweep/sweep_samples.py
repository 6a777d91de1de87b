"""A data set, weights and a config file small enough that a trial is real and takes seconds."""

from pathlib import Path

from tiny_models import micro, micro_params

from data_pipelines.build import build_shapes
from moonseg_jax.weights import POLICY, save_weights

FILE = """
import dataclasses
from tiny_models import micro
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.sweep.trial import Sweep, Trial
from moonseg_jax.train_config import RlConfig, SftConfig

COMMON = dict(
    model=micro(), data="data", start_from="start", steps=4, images_per_batch=2, phrases_per_image=1, log_every=1,
    eval_every=4, eval_scenes=2, checkpoint_every=2, loader_threads=0,
    optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3, warmup_steps=1),
)


def sft(**changes):
    return SftConfig(**{**COMMON, **changes})


def rl(**changes):
    return RlConfig(**{**COMMON, "group": 2, "pair_buffer": 4, **changes})


"""
"""Start of a config file; what follows defines `sweep()` or `search(trial)`."""

SUPERVISED = """
def sweep():
    trials = [Trial(arm=arm, config=sft(seed=seed, heat_weight=weight))
              for seed in (0, 1) for arm, weight in (("plain", 1.0), ("cold", 0.0))]
    return Sweep(trials=tuple(trials), baseline="plain")
"""
"""Two supervised arms under two seeds."""

FIGURES = {"miou": 0.5, "ciou": 0.5, "biou_2px": 0.3, "tokens": 20.0, "sampled_miou": 0.4, "n": 6.0}
"""What a trial may come to."""


def make_inputs(folder: Path) -> None:
    """`data` and `start`, which config files name relative to the folder they run in."""
    build_shapes(folder / "data", train=4, val=3, val_unseen=1, level=1, progress=False)
    save_weights(folder / "start", POLICY, micro_params(), micro())
