"""Coarse masks that a refiner is judged on: a policy's greedy paths, corrupted ground truths, rollout-like outlines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from moonseg_jax.batch import true_mask
from moonseg_jax.corruption import corrupt
from moonseg_jax.evaluate import Decoder, crops_of
from moonseg_jax.policy import Policy
from moonseg_jax.refiner_evidence.outline_errors import OutlineErrors, rough_outline
from moonseg_jax.synthetic_pairs import jittered_box, true_box
from moonseg_jax.types import Example, Scene

BOX_JITTER = 0.1
"""Of the boxes around corrupted masks: the default of training, `RefinerConfig.box_jitter`."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CoarseMask:
    """One mask to refine, with what it is judged by."""

    image: UInt8[np.ndarray, "H W 3"]
    box: Float[np.ndarray, " 4"]
    """cx, cy, w, h in units of the image, as decoded or drawn."""
    coarse: Bool[np.ndarray, "H W"]
    truth: Bool[np.ndarray, "H W"]
    """Empty for a phrase without target."""


def greedy_masks(policy: Policy, params: Any, scenes: Sequence[Scene], phrases: int) -> list[CoarseMask]:
    """What the policy draws greedily for the first phrases of every scene, those without target included.

    Args:
      policy: draws.
      params: its parameters.
      scenes: at least one.
      phrases: per scene.
    """
    crops = crops_of(scenes, policy)
    drawn = Decoder(policy, images=16, phrases=phrases, crops=crops)(params, scenes)
    return [
        CoarseMask(
            image=one.example.image, box=one.box, coarse=one.mask(), truth=true_mask(one.example)
        )
        for one in drawn
    ]  # fmt: skip


def corrupted_masks(scenes: Sequence[Scene], phrases: int, seed: int) -> list[CoarseMask]:
    """Ground truths that went through `corruption.corrupt`, in jittered boxes: the stream that synthetic pairs are of.

    No policy is asked, so that photos of any kind will do.

    Args:
      scenes: at least one.
      phrases: per scene, the first ones that have a target.
      seed: of corruption and jitter; each example has a stream of its own.
    """
    masks = []
    for example, truth, rng in _targets(scenes, phrases, seed):
        box = jittered_box(true_box(truth), BOX_JITTER, rng)
        masks.append(CoarseMask(image=example.image, box=box, coarse=corrupt(truth, rng), truth=truth))
    return masks


def outline_masks(scenes: Sequence[Scene], phrases: int, seed: int, errors: OutlineErrors) -> list[CoarseMask]:
    """Traced ground truths with the errors of a policy's samples, see `outline_errors`.

    Args:
      scenes: at least one; the policy need not know their kind.
      phrases: per scene, the first ones that have a target.
      seed: of the errors that are drawn; each example has a stream of its own.
      errors: measured where the policy knows the images.
    """
    masks = []
    for example, truth, rng in _targets(scenes, phrases, seed):
        coarse, box = rough_outline(truth, errors, rng)
        masks.append(CoarseMask(image=example.image, box=box, coarse=coarse, truth=truth))
    return masks


def _targets(
    scenes: Sequence[Scene], phrases: int, seed: int
) -> Iterator[tuple[Example, Bool[np.ndarray, "H W"], np.random.Generator]]:
    for number, scene in enumerate(scenes):
        for k, example in enumerate(scene.examples[:phrases]):
            truth = true_mask(example)
            if truth.any():
                yield example, truth, np.random.default_rng((seed, number, k))
