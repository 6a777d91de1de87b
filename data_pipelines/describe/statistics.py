"""Numbers of every example, and their spread over a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from moonseg_jax.config import ModelConfig
from moonseg_jax.paths.target import encode_target
from moonseg_jax.paths.vocabulary import Vocabulary
from moonseg_jax.types import Example

QUANTILES = (0.1, 0.5, 0.9, 0.99)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleNumbers:
    """What is counted of an example; what is counted of masks is None without a target."""

    words: int
    characters: int
    area: float | None = None
    """Share of the photo."""
    parts: int | None = None
    """Connected by sides or corners."""
    holes: int | None = None
    tokens: int | None = None
    """Of the target as a policy has to write it: box, path and EOS."""
    traced_iou: float | None = None
    """IoU of that path with the mask: what imitation can reach."""
    is_cut: bool | None = None
    """Whether parts were left out, too small for the lattice or beyond the budget."""


def example_numbers(example: Example, model: ModelConfig, vocabulary: Vocabulary) -> ExampleNumbers:
    """Counts one example.

    Args:
      example: with its mask.
      model: whose path language targets are written in.
      vocabulary: of that language.
    """
    said = ExampleNumbers(words=len(example.phrase.split()), characters=len(example.phrase))
    if example.target is None:
        return said
    mask = coco_mask.decode(example.target) > 0
    parts, holes = parts_and_holes(mask)
    traced = encode_target(mask, vocabulary=vocabulary, paths=model.paths, region=model.region)
    return dataclasses.replace(
        said, area=float(mask.mean()), parts=parts, holes=holes, tokens=len(traced.token_ids), traced_iou=traced.iou,
        is_cut=traced.dropped_area > 0,
    )  # fmt: skip


def parts_and_holes(mask: np.ndarray) -> tuple[int, int]:
    """Outer outlines of a mask, and outlines of holes in it."""
    _, levels = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if levels is None:
        return 0, 0
    outer = int((levels[0, :, 3] < 0).sum())
    return outer, len(levels[0]) - outer


def summary(numbers: Sequence[ExampleNumbers], photos: int, budget: int) -> dict[str, Any]:
    """Counts of a split and quantiles of its numbers.

    Args:
      numbers: of all examples, at least one.
      photos: that hold them.
      budget: tokens that a completion may have.
    """
    targets = [one for one in numbers if one.area is not None]
    spread = {
        name: quantiles([getattr(one, name) for one in rows])
        for rows, names in (
            (numbers, ("words", "characters")), (targets, ("area", "parts", "holes", "tokens", "traced_iou"))
        )
        for name in names
        if rows
    }  # fmt: skip
    return {
        "photos": photos, "phrases": len(numbers), "without_target": len(numbers) - len(targets),
        "several_parts": sum(one.parts > 1 for one in targets if one.parts is not None),
        "with_holes": sum(bool(one.holes) for one in targets), "cut": sum(bool(one.is_cut) for one in targets),
        "budget": budget, "at_budget": sum(one.tokens == budget for one in targets), "spread": spread,
    }  # fmt: skip


def quantiles(values: Sequence[float]) -> Mapping[str, float]:
    """`mean`, `p10`, `p50`, `p90`, `p99` and `max` of at least one value."""
    array = np.asarray(values, np.float64)
    found = {f"p{round(100 * q)}": float(np.quantile(array, q)) for q in QUANTILES}
    return {"mean": float(array.mean()), **found, "max": float(array.max())}
