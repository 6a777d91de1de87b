"""Does an answer tell that its object is not there? The shipped weights on held-out scenes, phrases half of each kind.

Per scene, "the COLOUR KIND" of two objects that are the only such ones, and of two that are not there. AUC: how often a
present object's phrase has the higher value than an absent one's. Scenes from 2000 on of split `val`, level 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_pipelines.shapes.scene import DrawnScene, draw_scene
from moonseg_jax.baselines import mask_iou
from moonseg_jax.predict import Segmenter

FIRST_SCENE = 2000
LOW = 0.1


def named(scene: DrawnScene) -> list[tuple[str, str]]:
    """Colour and kind of every object."""
    return [(one.role.colour, one.role.kind) for one in scene.objects]


def bench_presence(scenes: int, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Asks the shipped weights.

    Args:
      scenes: how many.
      tell: is told how far it is.

    Returns:
      `present` and `absent` (numbers of phrases), and per field its `auc`, and for both kinds of phrases the `median`
      and the share `below` `LOW`.
    """
    segmenter, rng = Segmenter.load(), np.random.default_rng(0)
    drawn = [draw_scene(0, FIRST_SCENE + index, 2, "val") for index in range(scenes)]
    colours = sorted({colour for scene in drawn for colour, _ in named(scene)})
    kinds = sorted({kind for scene in drawn for _, kind in named(scene)})
    told: dict[str, list[tuple[bool, float]]] = {"score": [], "agreement": [], "presence": []}
    for count, scene in enumerate(drawn):
        if count % 20 == 0:
            tell(f"scene {count} of {scenes}")
        there = named(scene)
        alone = [one for one in dict.fromkeys(there) if there.count(one) == 1][:2]
        missing = [(colour, kind) for colour in colours for kind in kinds if (colour, kind) not in there]
        if len(alone) < 2:
            continue
        asked = [*alone, *(missing[place] for place in rng.permutation(len(missing))[:2])]
        answers = segmenter.segment(scene.image, [f"the {colour} {kind}" for colour, kind in asked])
        for number, answer in enumerate(answers):
            values = (np.nan_to_num(answer.score), mask_iou(answer.mask, answer.coarse_mask), answer.presence)
            for name, value in zip(told, values, strict=True):
                told[name].append((number < 2, float(value)))
    return {
        "scenes": scenes, "below": LOW, "present": sum(is_there for is_there, _ in told["presence"]),
        "absent": sum(not is_there for is_there, _ in told["presence"]),
        **{name: told_apart(pairs) for name, pairs in told.items()},
    }  # fmt: skip


def told_apart(pairs: Sequence[tuple[bool, float]]) -> dict[str, Any]:
    """How well a value tells present from absent: (is there, value) of every phrase, some of each kind."""
    present, absent = (np.array([value for is_there, value in pairs if is_there == kind]) for kind in (True, False))
    ahead = (present[:, None] > absent).mean() + (present[:, None] == absent).mean() / 2
    kinds = {"present": present, "absent": absent}
    return {
        "auc": float(ahead),
        "median": {kind: float(np.median(values)) for kind, values in kinds.items()},
        "below": {kind: float((values < LOW).mean()) for kind, values in kinds.items()},
    }
