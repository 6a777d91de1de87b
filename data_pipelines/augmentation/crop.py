"""Cutting a scene down to a part that holds every target whole."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
from pycocotools import mask as coco_mask

from data_pipelines.augmentation.flip import remade
from moonseg_jax.types import Example, Scene

MARGIN = 0.02
"""Left around the targets, as a share of the image's side."""
OF_THE_WHOLE = re.compile(
    r"\b(?:left|right|middle|centre|center|central|top|bottom|upper|lower|corner|edge|side|end|back|front|background|"
    r"foreground|first|second|third|fourth|fifth|last|next|near|nearest|far|farthest|furthest|close|closest|between|"
    r"behind|above|below|beside|under|over|by|of|to|from|off|on|at|other|others|another|only|alone|same|row|whole|full|"
    r"half|cut|cropped|partial|partially|visible|photo|picture|image|frame|screen|camera|big|small|large|little|tall|"
    r"short|[a-z]+most|[a-z]+(?:est|er))\b",
    re.IGNORECASE,
)
"""Words of place, order, comparison and of the image itself: a crop may make them false, or their landmark vanish."""


def cropped(scene: Scene, least_side: float, generator: np.random.Generator) -> Scene | None:
    """A random part of the scene; None where a phrase speaks of more than its target, or no part holds all targets.

    Args:
      scene: one image with its phrases.
      least_side: of the part, as a share of the image's side.
      generator: draws the part.
    """
    if any(OF_THE_WHOLE.search(example.phrase) or example.references for example in scene.examples):
        return None
    image = scene.examples[0].image
    height, width = image.shape[:2]
    needed = _needed(scene, height, width)
    x0, x1 = _span(*needed[0], width, least_side, generator)
    y0, y1 = _span(*needed[1], height, least_side, generator)
    if (x1 - x0, y1 - y0) == (width, height):
        return None
    pixels = np.ascontiguousarray(image[y0:y1, x0:x1])

    def part(example: Example) -> Example:
        target = example.target
        if target is not None:
            target = remade(target, lambda mask: mask[y0:y1, x0:x1])
        return dataclasses.replace(example, image=pixels, target=target)

    return Scene(examples=tuple(part(example) for example in scene.examples))


def _needed(scene: Scene, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last pixel, plus one, that the part must hold, across and down; empty without targets."""
    targets = [example.target for example in scene.examples if example.target is not None]
    if not targets:
        return (width // 2, width // 2), (height // 2, height // 2)
    boxes = coco_mask.toBbox(targets)
    starts, ends = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    spans = []
    for axis, extent in enumerate((width, height)):
        margin = MARGIN * extent
        spans.append((max(int(starts[axis] - margin), 0), min(int(np.ceil(ends[axis] + margin)), extent)))
    return spans[0], spans[1]


def _span(start: int, end: int, extent: int, least: float, generator: np.random.Generator) -> tuple[int, int]:
    """A random span that holds [start, end) and is at least `least * extent` long."""
    length = max(round(generator.uniform(least, 1.0) * extent), end - start, 1)
    first = int(generator.integers(max(end - length, 0), min(start, extent - length) + 1))
    return first, first + length
