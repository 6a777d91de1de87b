"""Does an answer tell that its object is not there? The shipped weights on held-out scenes, phrases half of each kind.

    python -m moonseg_jax.bench.presence 150

Per scene, "the COLOUR KIND" of two objects that are the only such ones, and of two that are not there. AUC: how often a
present object's phrase has the higher value than an absent one's. Scenes from 2000 on of split `val`, level 2.
"""

from __future__ import annotations

import sys

import numpy as np

from data_pipelines.shapes.scene import DrawnScene, draw_scene
from moonseg_jax.predict import Segmenter

FIRST_SCENE = 2000
LOW = 0.1


def named(scene: DrawnScene) -> list[tuple[str, str]]:
    """Colour and kind of every object."""
    return [(one.role.colour, one.role.kind) for one in scene.objects]


def main(scenes: int) -> None:
    """Prints AUC and medians of what an answer tells."""
    segmenter, rng = Segmenter.load(), np.random.default_rng(0)
    drawn = [draw_scene(0, FIRST_SCENE + index, 2, "val") for index in range(scenes)]
    colours = sorted({colour for scene in drawn for colour, _ in named(scene)})
    kinds = sorted({kind for scene in drawn for _, kind in named(scene)})
    told: dict[str, list[tuple[bool, float]]] = {"score": [], "agreement": [], "presence": []}
    for scene in drawn:
        there = named(scene)
        alone = [one for one in dict.fromkeys(there) if there.count(one) == 1][:2]
        missing = [(colour, kind) for colour in colours for kind in kinds if (colour, kind) not in there]
        if len(alone) < 2:
            continue
        asked = [*alone, *(missing[place] for place in rng.permutation(len(missing))[:2])]
        answers = segmenter.segment(scene.image, [f"the {colour} {kind}" for colour, kind in asked])
        for number, answer in enumerate(answers):
            union = (answer.mask | answer.coarse_mask).sum()
            agreement = (answer.mask & answer.coarse_mask).sum() / max(union, 1)
            values = (np.nan_to_num(answer.score), agreement, answer.presence)
            for name, value in zip(told, values, strict=True):
                told[name].append((number < 2, float(value)))
    for name, pairs in told.items():
        present, absent = (np.array([value for is_there, value in pairs if is_there == kind]) for kind in (True, False))
        auc = (present[:, None] > absent).mean() + (present[:, None] == absent).mean() / 2
        medians = f"medians {np.median(present):.2f} and {np.median(absent):.2f}"
        low = f"below {LOW}: {(present < LOW).mean():.1%} and {(absent < LOW).mean():.1%}"
        print(f"{name:10} AUC {auc:.3f}, {medians}, {low} of {len(present)} present and {len(absent)} absent")


if __name__ == "__main__":
    main(int(sys.argv[1]))
