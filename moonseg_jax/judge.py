"""Weights × held-out scenes → figures before and after refinement, baselines, and scenes for the gallery."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.source import open_split
from moonseg_jax.baselines import BaselineSample, measure_baselines
from moonseg_jax.batch import true_mask
from moonseg_jax.evaluate import Decoder, crops_of, held_out_scenes, mask_metrics
from moonseg_jax.gallery.scenes import GalleryItem, judged_scenes
from moonseg_jax.policy import load_policy
from moonseg_jax.predict import find_weights
from moonseg_jax.refine import load_refiner, refine_predictions
from moonseg_jax.refiner_evidence.evidence import Evidence
from moonseg_jax.refiner_evidence.sources import CoarseFrom, embedded_scenes, gather, known_scenes
from moonseg_jax.types import Scene

Figures = dict[str, float]
REFINE_BATCH = 16
"""Crops that are refined side by side, unless another number is asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What held-out scenes say of one set of weights."""

    coarse: Figures
    refined: Figures | None
    sampled_miou: float
    baselines: Figures | None
    statuses: dict[str, int]
    """How many phrases ended in which status, see `moonseg_jax.status`."""
    iterations: int
    """Of the refiner; 0 where there is none."""
    gallery: list[GalleryItem]


def judge(
    policy_folder: Path,
    refiner_folder: Path | None,
    scenes: Sequence[Scene],
    *,
    phrases: int,
    seed: int,
    baselines: bool = False,
    iterations: int | None = None,
    refine_batch: int = REFINE_BATCH,
) -> Judgement:
    """Judges greedy paths, one sample at T = 1 per phrase, and refined masks where a refiner is given.

    Args:
      policy_folder: policy weights.
      refiner_folder: refiner weights or None.
      scenes: held-out scenes.
      phrases: phrases judged per scene, the first ones.
      seed: of the samples at T = 1.
      baselines: also measure the three trivial baselines.
      iterations: of the refiner, at least 1; None takes the model's.
      refine_batch: crops that are refined side by side.

    Raises:
      UserError: weights are missing or do not fit.
    """
    policy, params = load_policy(policy_folder)
    crops = crops_of(scenes, policy)
    greedy = Decoder(policy, images=16, phrases=phrases, crops=crops)
    sampled = Decoder(policy, images=16, phrases=phrases, crops=crops, temperature=1.0)
    predictions = greedy(params, scenes)
    coarse = [prediction.mask() for prediction in predictions]
    refiner = None
    if refiner_folder is not None:
        refiner = load_refiner(refiner_folder, policy, params, refine_batch, iterations)
    final = refine_predictions(refiner, predictions, coarse)
    return Judgement(
        coarse=mask_metrics(predictions, coarse).summary(),
        refined=mask_metrics(predictions, [one.mask for one in final]).summary() if refiner else None,
        sampled_miou=mask_metrics(sampled(params, scenes, seed)).summary()["miou"],
        baselines=_baselines(scenes, phrases, coarse) if baselines else None,
        statuses=dict(collections.Counter(one.status for one in final)),
        iterations=refiner.iterations if refiner else 0,
        gallery=judged_scenes(predictions, coarse, final if refiner else None),
    )


def _baselines(scenes: Sequence[Scene], phrases: int, coarse: Sequence[np.ndarray]) -> Figures:
    """Trivial predictions on the same phrases; the other objects are those that other phrases name."""
    masks = iter(coarse)
    samples = []
    for scene in scenes:
        truths = [true_mask(example) for example in scene.examples]
        for k in range(min(phrases, len(truths))):
            others = {truth.tobytes(): truth for truth in truths if not np.array_equal(truth, truths[k])}
            samples.append(
                BaselineSample(
                    image=scene.examples[0].image, ground_truth=truths[k], others=tuple(others.values()),
                    coarse=next(masks),
                )
            )  # fmt: skip
    measured = measure_baselines(samples)
    return {**dataclasses.asdict(measured), "flood_fill_gain": measured.flood_fill_gain}


def judge_refinement(
    *,
    policy: Path | None,
    refiner: Path | None,
    coarse_from: Sequence[CoarseFrom],
    data: Path | None,
    split: str,
    known: Path | None,
    scenes: int,
    phrases: int,
    iterations: int | None,
    refine_batch: int,
    seed: int,
    guard: bool = False,
) -> dict[CoarseFrom, Evidence]:
    """What `moonseg evidence` says of a refiner, by source of the coarse masks.

    Args:
      policy: policy weights; None takes the shipped policy and refiner.
      refiner: refiner weights; None takes those in the policy's folder.
      coarse_from: sources, each once.
      data: folder of a data set; None draws embedded scenes.
      split: of that data set.
      known: data set that the policy knows, see `known_scenes`; None draws embedded scenes.
      scenes: how many of the first scenes.
      phrases: judged per scene, the first ones.
      iterations: calls of the refinement head, at least 1; None takes the model's.
      refine_batch: crops that are refined side by side.
      seed: of embedded scenes, samples, corruptions and errors.
      guard: of the refiner, see `Refiner`.

    Raises:
      UserError: weights or data are missing or do not fit.
    """
    policy, refiner = find_weights(policy, refiner, refine=True, iterations=iterations)
    assert refiner is not None, "refinement is asked for"
    loaded, params = load_policy(policy)
    head = load_refiner(refiner, loaded, params, refine_batch, iterations, guard)
    return gather(
        head, loaded, params, _held_out(data, split, scenes, seed), known_scenes(known, "train"),
        phrases=phrases, seed=seed, coarse_from=coarse_from,
    )  # fmt: skip


def _held_out(data: Path | None, split: str, scenes: int, seed: int) -> list[Scene]:
    """The first scenes of a split, or embedded scenes that no training has seen."""
    if data is None:
        return embedded_scenes(scenes, seed)
    return held_out_scenes(open_split(data, split, at_least=scenes), scenes)
