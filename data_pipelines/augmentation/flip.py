"""Mirroring a scene: pixels, masks, references and phrases together, or not at all."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from data_pipelines.augmentation.sides import mirrored_phrase
from moonseg_jax.types import Example, Scene


def flipped(scene: Scene) -> Scene | None:
    """The scene as a mirror shows it; None where a phrase's truth there cannot be known."""
    phrases = [mirrored_phrase(example.phrase) for example in scene.examples]
    image = np.ascontiguousarray(scene.examples[0].image[:, ::-1])
    examples = []
    for example, phrase in zip(scene.examples, phrases):
        if phrase is None:
            return None
        examples.append(_flipped(example, image, phrase))
    return Scene(examples=tuple(examples))


def _flipped(example: Example, image: np.ndarray, phrase: str) -> Example:
    return dataclasses.replace(
        example, image=image, phrase=phrase,
        target=None if example.target is None else remade(example.target, lambda mask: mask[:, ::-1]),
        references=tuple((1.0 - x, *rest) for x, *rest in example.references),
    )  # fmt: skip


def remade(target: dict[str, Any], change: Any) -> dict[str, Any]:
    """The run-length encoding of a changed mask.

    Args:
      target: COCO run-length encoding.
      change: function of uint8[H, W].
    """
    return coco_mask.encode(np.asfortranarray(change(coco_mask.decode(target))))
