"""How far a policy's samples lie from the ground truth, and outlines of other objects that are wrong by as much.

A sample's errors are six numbers, measured where the policy knows the images: those of its box (shift and logarithm
of the stretch along both axes, in units of the true box), the distance of its vertices to the true outline once both
boxes are laid on each other, and how many vertices it has against a traced outline. An outline elsewhere takes all six
from one sample, drawn at random, so that boxes, jitter and coarseness stay together as they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.baselines import mask_iou
from moonseg_jax.batch import true_mask
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Decoder, Prediction, crops_of
from moonseg_jax.pairs import MIN_IOU
from moonseg_jax.paths.close_fit import simplify_closely
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.trace import trace
from moonseg_jax.policy import Policy
from moonseg_jax.synthetic_pairs import true_box
from moonseg_jax.types import Scene

TOLERANCE_PX = 0.5
"""Of the traced outline, that of the targets which policies learn from."""
PHRASES = 2
"""Sampled per scene, the first ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutlineErrors:
    """Errors of N samples, a row each."""

    shift: Float[np.ndarray, "N 2"]
    """Of the box's centre, in widths and heights of the true box."""
    stretch: Float[np.ndarray, "N 2"]
    """Logarithm of the box's width and height over the true ones."""
    jitter: Float[np.ndarray, " N"]
    """Root mean square distance of the vertices to the true outline, in units of the box."""
    kept: Float[np.ndarray, " N"]
    """Vertices over those of the traced outline, at most 1."""

    def medians(self) -> dict[str, float]:
        """The middle of each error, by size: what a reader compares."""
        sizes = {"shift": np.abs(self.shift), "stretch": np.abs(self.stretch), "jitter": self.jitter, "kept": self.kept}
        return {name: float(np.median(values)) for name, values in sizes.items()}


def sample_errors(policy: Policy, params: Any, scenes: Sequence[Scene], seed: int) -> OutlineErrors:
    """Errors of one sample at T = 1 per phrase, of those that overlap their object as pairs for training must.

    Args:
      policy: draws the samples.
      params: its parameters.
      scenes: of a kind that the policy knows; at least one.
      seed: of the samples.

    Raises:
      UserError: no sample overlaps its object.
    """
    crops = crops_of(scenes, policy)
    drawn = Decoder(policy, images=16, phrases=PHRASES, crops=crops, temperature=1.0)(params, scenes, seed)
    return errors_of(drawn)


def errors_of(predictions: Sequence[Prediction]) -> OutlineErrors:
    """Errors of drawn outlines with an IoU of at least `pairs.MIN_IOU`.

    Raises:
      UserError: there are none.
    """
    rows = []
    for one in predictions:
        truth = true_mask(one.example)
        if truth.any() and min(one.box[2:]) > 0 and mask_iou(one.mask(), truth) >= MIN_IOU:
            rows.append(_errors(one, truth))
    if not rows:
        raise UserError(
            f"none of {len(predictions)} samples of the policy overlaps its object, so the errors of its outlines "
            "cannot be measured: name a data set that it knows, or leave outlines out of --coarse-from"
        )
    shift, stretch, jitter, kept = (np.array(column) for column in zip(*rows))
    return OutlineErrors(shift=shift, stretch=stretch, jitter=jitter, kept=kept)


def rough_outline(
    truth: Bool[np.ndarray, "H W"], errors: OutlineErrors, rng: np.random.Generator
) -> tuple[Bool[np.ndarray, "H W"], Float[np.ndarray, " 4"]]:
    """The traced outline of a mask with the errors of one measured sample: filled, and its box.

    Vertices are dropped at random, at least three stay of each subpath; those that stay move by normal noise whose
    deviation along both axes is the sample's jitter, so that the distance to the line they lay on has that size.

    Args:
      truth: not empty.
      errors: to draw from.
      rng: of all that is drawn.
    """
    height, width = truth.shape
    row = int(rng.integers(len(errors.jitter)))
    true = true_box(truth)
    box = np.concatenate([true[:2] + errors.shift[row] * true[2:], true[2:] * np.exp(errors.stretch[row])])
    polygons = []
    for polygon in _traced(truth):
        inside = _in_box(polygon / (width, height), true)
        count = min(max(3, round(errors.kept[row] * len(inside))), len(inside))
        inside = inside[np.sort(rng.permutation(len(inside))[:count])]
        inside = inside + rng.normal(0.0, errors.jitter[row], inside.shape)
        polygons.append((box[:2] + (inside - 0.5) * box[2:]) * (width, height))
    return fill(polygons, height, width), box


def _errors(one: Prediction, truth: Bool[np.ndarray, "H W"]) -> tuple[np.ndarray, np.ndarray, float, float]:
    box, true = one.box.astype(np.float64), true_box(truth)
    size = np.array(truth.shape[::-1])
    outline, vertices = _traced(truth), np.concatenate(one.polygons)
    distance = _distances(_in_box(vertices, box), [_in_box(polygon / size, true) for polygon in outline])
    return (
        (box[:2] - true[:2]) / true[2:],
        np.log(box[2:] / true[2:]),
        float(np.sqrt(np.mean(distance**2))),
        min(1.0, len(vertices) / sum(map(len, outline))),
    )


def _traced(mask: Bool[np.ndarray, "H W"]) -> list[Float[np.ndarray, "V 2"]]:
    """The outlines and holes of a mask in pixels, simplified."""
    polygons = [polygon for part in trace(mask) for polygon in part.polygons]
    return list(simplify_closely(polygons, mask, TOLERANCE_PX).polygons)


def _in_box(points: Float[np.ndarray, "V 2"], box: Float[np.ndarray, " 4"]) -> Float[np.ndarray, "V 2"]:
    """Points in units of the image → in units of a box, 0 to 1 inside."""
    return (points - box[:2]) / box[2:] + 0.5


def _distances(
    points: Float[np.ndarray, "V 2"], polygons: Sequence[Float[np.ndarray, "U 2"]]
) -> Float[np.ndarray, " V"]:
    """Distance of every point to the nearest edge of closed polygons, in their units."""
    start = np.concatenate(polygons)
    along = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons]) - start
    offset = points[:, None] - start
    share = np.clip((offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12), 0.0, 1.0)
    return np.linalg.norm(offset - share[..., None] * along, axis=-1).min(axis=1)
