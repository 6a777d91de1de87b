"""Annotations as hurried annotators make them, of objects whose exact mask is known: coarse, and some of them wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool

from data_pipelines.shapes.scene import EXAMPLES_PER_SCENE, DrawnScene, draw_scene
from moonseg_jax.baselines import mask_iou
from moonseg_jax.clean.instances import Instance
from moonseg_jax.errors import UserError
from moonseg_jax.refiner_evidence.sources import EMBEDDED_LEVEL, EMBEDDED_SEED

OTHER_OBJECT, SHIFTED, MERGED, PART_MISSING = "other object", "shifted", "merged", "part missing"
FAULTS = (OTHER_OBJECT, SHIFTED, MERGED, PART_MISSING)
"""What a wrong annotation is: the outline of another object of the scene; the right one, moved by a third to two
thirds of its size; the right one united with its nearest neighbour; a third to two thirds of the right one."""

TOLERANCE_PX = (1.5, 3.5)
"""Of the polygon, at 96 pixels: the range it is drawn from."""
CLICK_PX = 0.5
"""Standard deviation of a click along both axes."""
LARGEST_IOU = 0.75
"""A wrong annotation overlaps the truth by less than this, or it would be a coarse one."""
_TRIES = 20


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AnnotatedObject:
    """An instance as annotated, with what is known of it."""

    instance: Instance
    truth: Bool[np.ndarray, "H W"]
    fault: str | None
    """One of `FAULTS`; None for an annotation of the right object."""


def annotated_objects(scenes: int, seed: int, wrong: float) -> list[AnnotatedObject]:
    """All referred objects of embedded scenes that no training has seen, annotated as polygons.

    Args:
      scenes: how many.
      seed: other scenes and other errors for every seed.
      wrong: share of objects whose annotation is meant to be wrong. Kinds take turns; where a kind is not possible
        (an object that no third can be cut of) another takes its place.

    Raises:
      UserError: no scene, a negative seed, or a share outside of 0 to 1.
    """
    if scenes < 1 or seed < 0 or not 0.0 <= wrong <= 1.0:
        raise UserError(f"scenes {scenes}, seed {seed}, wrong {wrong}: give at least 1, at least 0, and 0 to 1")
    objects: list[AnnotatedObject] = []
    turn = 0
    for number in range(scenes):
        drawn = draw_scene(EMBEDDED_SEED + seed, number, EMBEDDED_LEVEL, "val")
        for position, target in enumerate(dict.fromkeys(said.target for said in drawn.expressions)):
            rng = np.random.default_rng((seed, number, position))
            truth = drawn.objects[target].mask
            others = [item.mask for k, item in enumerate(drawn.objects) if k != target]
            fault, shape = None, truth
            if rng.random() < wrong:
                fault, shape = _wrong(truth, others, turn, rng)
                turn += 1
            instance = _instance(drawn, number, position, target, polygon_of(shape, rng))
            objects.append(AnnotatedObject(instance=instance, truth=truth, fault=fault))
    return objects


def polygon_of(mask: Bool[np.ndarray, "H W"], rng: np.random.Generator) -> Bool[np.ndarray, "H W"]:
    """The mask as a hurried annotator draws it: few vertices, each a little off, and no holes.

    Args:
      mask: of the object; every part is outlined, a part that vanishes keeps its exact outline.
      rng: of the tolerance and of the clicks.
    """
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(mask.shape, np.uint8)
    for outline in outlines:
        polygon = cv2.approxPolyDP(outline, rng.uniform(*TOLERANCE_PX), closed=True)
        if len(polygon) < 3:
            polygon = outline
        clicks = polygon + rng.normal(0.0, CLICK_PX, polygon.shape)
        cv2.fillPoly(drawn, [np.rint(clicks).astype(np.int32)], (1,))
    return drawn.astype(bool)


def _wrong(
    truth: Bool[np.ndarray, "H W"], others: Sequence[Bool[np.ndarray, "H W"]], turn: int, rng: np.random.Generator
) -> tuple[str, Bool[np.ndarray, "H W"]]:
    for attempt in range(len(FAULTS)):
        kind = FAULTS[(turn + attempt) % len(FAULTS)]
        for _ in range(_TRIES):
            shape = {OTHER_OBJECT: _other, SHIFTED: _shifted, MERGED: _merged, PART_MISSING: _cut}[kind](
                truth, others, rng
            )
            if shape.any() and mask_iou(shape, truth) < LARGEST_IOU:
                return kind, shape
    raise RuntimeError("another object is always possible: scenes hold two or more")


def _other(truth: np.ndarray, others: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return others[int(rng.integers(len(others)))]


def _shifted(truth: np.ndarray, others: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(1 / 3, 2 / 3)
    _, _, width, height = cv2.boundingRect(truth.astype(np.uint8))
    dx, dy = share * width * np.cos(angle), share * height * np.sin(angle)
    moved = cv2.warpAffine(truth.astype(np.uint8), np.array([[1, 0, dx], [0, 1, dy]]), truth.shape[::-1], flags=0)
    return moved.astype(bool)


def _merged(truth: np.ndarray, others: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    distance = cv2.distanceTransform((~truth).astype(np.uint8), cv2.DIST_L2, 3)
    return truth | min(others, key=lambda other: float(distance[other].min()) if other.any() else np.inf)


def _cut(truth: np.ndarray, others: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    places = np.argwhere(truth)
    angle = rng.uniform(0, 2 * np.pi)
    along = places @ np.array([np.sin(angle), np.cos(angle)])
    kept = places[along <= np.quantile(along, rng.uniform(1 / 3, 2 / 3))]
    part = np.zeros_like(truth)
    part[kept[:, 0], kept[:, 1]] = True
    return part


def _instance(
    drawn: DrawnScene, number: int, position: int, target: int, annotation: Bool[np.ndarray, "H W"]
) -> Instance:
    said = [(k, one) for k, one in enumerate(drawn.expressions) if one.target == target]
    return Instance(
        scene=number, position=position, image_id=number, image=drawn.image,
        phrases=tuple(one.phrase for _, one in said),
        example_ids=tuple(number * EXAMPLES_PER_SCENE + k for k, _ in said), annotation=annotation,
    )  # fmt: skip
