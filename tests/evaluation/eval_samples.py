"""Weights of micro size, scenes of every kind that an evaluator meets, and what an evaluation leaves.

As a program it evaluates the narrow scenes: eval_samples.py WEIGHTS OUT
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
from tiny_models import micro, micro_params

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax.evaluation import run
from moonseg_jax.evaluation.held_out import HeldOut
from moonseg_jax.evaluation.settings import EvalSettings
from moonseg_jax.model.refiner import init_head, make_head
from moonseg_jax.types import Scene
from moonseg_jax.weights import POLICY, REFINER, save_weights

UNKNOWN_WORD = "the starfish"
NARROW = 72
"""Width in pixels of some scenes; all take several crops."""
SIZES = {"batch": 2, "refine_batch": 3, "iterations": 2}


def write_weights(folder):
    """A policy, and a head that changes what it gets."""
    save_weights(folder, POLICY, micro_params(), micro())
    rng = np.random.default_rng(0)
    head = init_head(make_head(micro()), micro().vision.width, 3)
    noisy = jax.tree.map(lambda leaf: np.asarray(leaf) + rng.normal(0, 0.1, leaf.shape).astype(np.float32), head)
    save_weights(folder, REFINER, noisy, micro())


def mixed_scenes():
    """Of several crops and sizes; with a phrase without target, one that cannot be said, and one with six phrases."""
    scenes = [
        generate_scene(0, index, 1, "val", size) for index, size in enumerate((NARROW, 96, NARROW, 80, NARROW, 96))
    ]
    scenes[2] = changed(scenes[2], 0, target=None)
    scenes[3] = changed(scenes[3], 1, phrase=UNKNOWN_WORD)
    first, second = scenes[4].examples[:2]
    more = [dataclasses.replace((first, second)[k % 2], example_id=1000 + k) for k in range(4)]
    scenes[4] = Scene(examples=(first, second, *more))
    return scenes


def of_width(width):
    """The mixed scenes of one width in pixels."""
    return [scene for scene in mixed_scenes() if scene.examples[0].image.shape[1] == width]


def changed(scene, position, **fields):
    """A scene with one example replaced."""
    examples = list(scene.examples)
    examples[position] = dataclasses.replace(examples[position], **fields)
    return Scene(examples=tuple(examples))


def held_out(scenes, phrases=None):
    """Scenes of a list, as a data set of class names."""
    return HeldOut(
        read=scenes.__getitem__, count=len(scenes), phrases=phrases, described={"name": "listed", "split": "val"},
        embedded=False, phrases_are_classes=True,
    )  # fmt: skip


def samples(folder, file="samples.jsonl"):
    """The lines of a log without the time they took."""
    lines = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def figures(folder):
    """What metrics.json says of the samples."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name not in ("seconds", "config")}


if __name__ == "__main__":
    run.open_held_out = lambda settings: held_out(of_width(NARROW))
    run.evaluate(EvalSettings(checkpoint=Path(sys.argv[1]), **SIZES), Path(sys.argv[2]))
