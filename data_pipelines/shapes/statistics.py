"""Scenes of a level in numbers: `python -m data_pipelines.shapes.statistics LEVEL SCENES`."""

from __future__ import annotations

import collections
import sys
import time

import numpy as np

from data_pipelines.shapes.scene import draw_scene, generate_scene

FAMILIES = ("relation", "order", "size")
"""Families of phrases by the tag that marks them, the strongest first; all others are attribute phrases."""


def statistics(level: int, scenes: int, split: str = "val", seed: int = 0) -> dict[str, float]:
    """Draws scenes and counts.

    Returns:
      Scenes per second of CPU time; objects and phrases per scene; share of each family of phrases; median,
      10th and 90th percentile of the area of targets, as a share of the image.
    """
    families: collections.Counter[str] = collections.Counter()
    objects, areas = [], []
    for index in range(scenes):
        drawn = draw_scene(seed, index, level, split)
        objects.append(len(drawn.objects))
        for said in drawn.expressions:
            families[next((tag for tag in FAMILIES if tag in said.tags), "attribute")] += 1
            areas.append(float(drawn.objects[said.target].mask.mean()))
    start = time.process_time()
    for index in range(scenes):
        generate_scene(seed, index, level, split)
    low, median, high = np.percentile(areas, (10, 50, 90))
    return {
        "scenes_per_second": scenes / (time.process_time() - start),
        "objects_per_scene": float(np.mean(objects)),
        "phrases_per_scene": families.total() / scenes,
        **{f"share_{family}": count / families.total() for family, count in sorted(families.items())},
        "area_p10": float(low),
        "area_p50": float(median),
        "area_p90": float(high),
    }


if __name__ == "__main__":
    for name, value in statistics(int(sys.argv[1]), int(sys.argv[2])).items():
        print(f"{name:20} {value:.3f}")
