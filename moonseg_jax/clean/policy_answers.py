"""What a policy itself draws for the phrases of an instance: it notices an outline of the wrong object."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.baselines import mask_iou
from moonseg_jax.clean.agreement import Measurement
from moonseg_jax.clean.instances import Instance
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Decoder
from moonseg_jax.images import crops_needed
from moonseg_jax.policy import Policy
from moonseg_jax.refine import Refiner, refine_predictions
from moonseg_jax.types import Example, Scene

IMAGES, PHRASES = 16, 2
"""Prompts of one call of the compiled program; an instance with more phrases takes several rows."""


class PolicyAnswers:
    """A policy and a refiner that are asked for every phrase, without a word about the annotation."""

    def __init__(self, policy: Policy, params: Any, refiner: Refiner):
        """Compiles nothing yet: at most two programs will be, one for images that fit one crop and one for others."""
        self._policy, self._params, self._refiner = policy, params, refiner
        self._decoders: dict[int, Decoder] = {}

    def compare(self, instances: Sequence[Instance], found: Sequence[Measurement]) -> list[Measurement]:
        """The measurements with `phrase_iou`; it stays None where the policy can say none of the phrases.

        Args:
          instances: whose phrases are asked.
          found: what the ensemble said of them, in the same order.

        Raises:
          UserError: a batch does not fit the device's memory.
        """
        answers = self.masks_of(instances)
        return [
            dataclasses.replace(one, phrase_iou=mean_iou(one.consensus, masks)) for one, masks in zip(found, answers)
        ]

    def masks_of(self, instances: Sequence[Instance]) -> list[list[Bool[np.ndarray, "H W"]]]:
        """Refined masks for the phrases of every instance; phrases that the vocabulary cannot say are left out."""
        answers: list[list[Bool[np.ndarray, "H W"]]] = [[] for _ in instances]
        rows: dict[int, list[tuple[int, Scene]]] = {}
        for number, one in enumerate(instances):
            sayable = [phrase for phrase in one.phrases if self._can_say(phrase)]
            crops = crops_needed([one.image.shape[:2]], self._policy.config.vision)
            for start in range(0, len(sayable), PHRASES):
                examples = tuple(
                    Example(image=one.image, phrase=phrase, target=None, image_id=one.image_id, example_id=0)
                    for phrase in sayable[start : start + PHRASES]
                )
                rows.setdefault(crops, []).append((number, Scene(examples=examples)))
        for crops, asked in rows.items():
            predictions = self._decoder(crops)(self._params, [scene for _, scene in asked])
            owners = [number for number, scene in asked for _ in scene.examples]
            for number, answer in zip(owners, refine_predictions(self._refiner, predictions), strict=True):
                answers[number].append(answer.mask)
        return answers

    def _can_say(self, phrase: str) -> bool:
        try:
            self._policy.vocabulary.prompt(phrase)
        except UserError:
            return False
        return True

    def _decoder(self, crops: int) -> Decoder:
        if crops not in self._decoders:
            self._decoders[crops] = Decoder(self._policy, images=IMAGES, phrases=PHRASES, crops=crops)
        return self._decoders[crops]


def mean_iou(mask: Bool[np.ndarray, "H W"], answers: Sequence[Bool[np.ndarray, "H W"]]) -> float | None:
    """Mean IoU of a mask with each answer; None without answers."""
    ious: Float[np.ndarray, " N"] = np.array([mask_iou(mask, answer) for answer in answers])
    return float(ious.mean()) if len(ious) else None
