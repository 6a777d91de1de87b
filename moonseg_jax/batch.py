"""Scenes on the host → batches of fixed shape, as NumPy arrays ready for the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from moonseg_jax.config import ModelConfig
from moonseg_jax.images import pack_crops
from moonseg_jax.paths.target import encode_target
from moonseg_jax.paths.vocabulary import Vocabulary
from moonseg_jax.types import Example, PromptBatch, TargetBatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchLayout:
    """What fixes the shapes of a batch."""

    model: ModelConfig
    vocabulary: Vocabulary
    phrases: int
    """K: phrases per image; scenes with fewer are padded, scenes with more are sampled from."""
    crops: int = 1
    """C: 1 when every image of the data fits one crop, else 1 + vision.max_tiles."""


def true_mask(example: Example) -> Bool[np.ndarray, "H W"]:
    """Ground truth at the image's resolution; all False for a phrase without target."""
    if example.target is None:
        return np.zeros(example.image.shape[:2], bool)
    return coco_mask.decode(example.target).astype(bool)


def to_raster(mask: Bool[np.ndarray, "H W"], side: int) -> Bool[np.ndarray, "R R"]:
    """The mask stretched to the reward raster: a pixel is set where at least half of its area is."""
    if mask.shape == (side, side):
        return mask
    shrinking = mask.shape[0] >= side and mask.shape[1] >= side
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return cv2.resize(mask.astype(np.float32), (side, side), interpolation=interpolation) >= 0.5


def prompt_batch(rows: Sequence[Sequence[Example]], layout: BatchLayout) -> PromptBatch:
    """Packs images with their phrases.

    Args:
      rows: per image, its examples (at least one, all of the same image).
      layout: the batch's shapes.

    Raises:
      UserError: a phrase the vocabulary cannot say, or an image that needs more crops than the layout has.
    """
    model, count = layout.model, layout.phrases
    vision, paths = model.vision, model.paths
    images = len(rows)
    crops = np.zeros((images, layout.crops, vision.crop, vision.crop, 3), np.uint8)
    stitch_rows = np.zeros((images, layout.crops, vision.grid, vision.grid), np.float32)
    stitch_cols = np.zeros_like(stitch_rows)
    ids = np.zeros((images, count, paths.max_prompt_tokens), np.int32)
    values = np.zeros((*ids.shape, 2), np.float32)
    lengths = np.ones((images, count), np.int32)
    truth = np.zeros((images, count, paths.raster, paths.raster), bool)
    example_ids = np.full((images, count), -1, np.int32)
    for i, examples in enumerate(rows):
        crops[i], stitch_rows[i], stitch_cols[i] = pack_crops(examples[0].image, vision, layout.crops)
        for k, example in enumerate(examples):
            row_ids, row_values = layout.vocabulary.prompt(example.phrase, example.references)
            lengths[i, k] = len(row_ids)
            ids[i, k, : len(row_ids)] = row_ids
            values[i, k, : len(row_ids)] = row_values
            truth[i, k] = to_raster(true_mask(example), paths.raster)
            example_ids[i, k] = example.example_id
    # Host arrays until they are placed on a mesh.
    fields: dict[str, Any] = {
        "crops": crops, "stitch_rows": stitch_rows, "stitch_cols": stitch_cols, "prompt_ids": ids,
        "prompt_values": values, "prompt_lengths": lengths, "ground_truth": truth, "example_ids": example_ids,
        "valid": example_ids >= 0,
    }  # fmt: skip
    return PromptBatch(**fields)


def target_batch(rows: Sequence[Sequence[Example]], layout: BatchLayout, order_seed: int | None = None) -> TargetBatch:
    """Traced targets of the same rows as `prompt_batch`: box, path and EOS.

    Args:
      rows: per image, its examples.
      layout: the batch's shapes.
      order_seed: outlines start at random vertices and run in a random direction, which depend on this number and
        the row's place in the batch alone; None writes them in canonical order.
    """
    model, budget = layout.model, layout.model.paths.max_new_tokens
    ids = np.full((len(rows), layout.phrases, budget), model.paths.eos, np.int32)
    bins = np.zeros((*ids.shape, 2), np.int32)
    lengths = np.zeros(ids.shape[:2], np.int32)
    for i, examples in enumerate(rows):
        for k, example in enumerate(examples):
            target = encode_target(
                true_mask(example), vocabulary=layout.vocabulary, paths=model.paths, region=model.region,
                explicit=model.paths.explicit_lines,
                rng=None if order_seed is None else np.random.default_rng((order_seed, i, k)),
            )  # fmt: skip
            lengths[i, k] = len(target.token_ids)
            ids[i, k, : lengths[i, k]] = target.token_ids
            bins[i, k, : lengths[i, k]] = target.bins
    fields: dict[str, Any] = {"token_ids": ids, "bins": bins, "lengths": lengths}
    return TargetBatch(**fields)
