"""The referred instances of a scene: its phrases, gathered by the mask they share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from moonseg_jax.batch import true_mask
from moonseg_jax.types import Example, Scene

NO_TARGET = "phrase without target"
POINTS = "phrase that points with a box or a point"
"""Phrases that the format cannot hold: it has neither empty targets nor spatial references."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """One annotated object with every phrase that means it."""

    scene: int
    """Number of the scene in its split."""
    position: int
    """Among the instances of the scene."""
    image_id: int
    image: UInt8[np.ndarray, "H W 3"]
    phrases: tuple[str, ...]
    """In the order of the data set; a phrase said twice is here twice."""
    example_ids: tuple[int, ...]
    """One for each phrase."""
    annotation: Bool[np.ndarray, "H W"]
    """What the data set gives as its mask."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DroppedPhrase:
    """A phrase that is left out by itself, not with its instance."""

    image_id: int
    example_id: int
    phrase: str
    reason: str


def instances_of(scene: Scene, number: int) -> tuple[list[Instance], list[DroppedPhrase]]:
    """Groups the examples of a scene by their target; phrases that the format cannot hold are dropped.

    Args:
      scene: of a data set; two phrases mean the same instance where their masks are equal.
      number: of the scene in its split.
    """
    groups: dict[Any, list[Example]] = {}
    dropped = []
    for example in scene.examples:
        if example.target is None or example.references:
            reason = NO_TARGET if example.target is None else POINTS
            dropped.append(
                DroppedPhrase(
                    image_id=example.image_id, example_id=example.example_id, phrase=example.phrase, reason=reason
                )
            )
        else:
            groups.setdefault(example.target["counts"], []).append(example)
    instances = [
        Instance(
            scene=number, position=position, image_id=group[0].image_id, image=group[0].image,
            phrases=tuple(example.phrase for example in group),
            example_ids=tuple(example.example_id for example in group), annotation=true_mask(group[0]),
        )
        for position, group in enumerate(groups.values())
    ]  # fmt: skip
    return instances, dropped
