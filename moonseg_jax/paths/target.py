"""Masks → the completions that supervised learning imitates: box, path and EOS as tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from pycocotools import mask as coco_mask

from moonseg_jax.config import PATH_UNITS, PathConfig, RegionConfig
from moonseg_jax.paths.close_fit import least_iou
from moonseg_jax.paths.fitting import fit_budget, outlines_of
from moonseg_jax.paths.lattice import Lattice
from moonseg_jax.paths.outline_order import shuffled_order
from moonseg_jax.paths.trace import trace
from moonseg_jax.paths.vocabulary import Vocabulary

BOX_AND_END_TOKENS = 4
"""cx, cy, size and EOS."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TracedTarget:
    """A completion that draws a mask, and how well it does."""

    token_ids: np.ndarray
    """int32[length]: box, path, EOS; EOS alone for an empty mask."""
    bins: np.ndarray
    """int32[length, 2]: coordinate bin in the first entry, (width, height) bins at the size; 0 elsewhere."""
    box: np.ndarray
    """float32[4]: cx, cy, w, h as the bins say, in units of the image; zeros for an empty mask."""
    iou: float
    """IoU of the path's point-sampled fill with the mask: the ceiling of imitation."""
    dropped_area: float
    """Square pixels inside the outlines and holes that were left out, too small or beyond the budget."""


def encode_target(
    mask: Bool[np.ndarray, "height width"] | Mapping[str, Any] | None,
    *,
    vocabulary: Vocabulary,
    paths: PathConfig,
    region: RegionConfig,
    rng: np.random.Generator | None = None,
    explicit: bool = False,
) -> TracedTarget:
    """Traces a mask and writes it as tokens that fit `max_new_tokens`.

    The tight box of the mask is quantised first, its size upwards, and path numbers are relative to the
    quantised box, so its quantisation moves nothing. Simplification starts at `trace_tolerance` and becomes
    coarser until the tokens fit (see `fitting`). With every integer of the box at hand it becomes finer where
    the mask would be drawn worse than `close_fit.least_iou`; coarser lattices cannot keep that promise, so
    tokens are not spent on it.

    Order: parts by area descending, holes after their outline, each polygon from its topmost, then leftmost
    vertex, outlines clockwise in the image.

    Args:
      mask: a mask, its COCO run-length encoding, or None for a phrase without target.
      vocabulary: writes letters and numbers.
      paths: budget, tolerance and control tokens.
      region: the scales of the box's bins.
      rng: if given, the polygons are written in a random order of their vertices; see `shuffled_order`.
      explicit: write the letter of every line-to.
    """
    pixels = np.zeros((1, 1), bool) if mask is None else _pixels(mask)
    parts = trace(pixels)
    if not parts:
        return _no_target(paths)
    corners = np.concatenate([part.outline for part in parts])
    lattice = Lattice.around(
        corners.min(axis=0),
        corners.max(axis=0),
        size=(pixels.shape[1], pixels.shape[0]),
        region=region,
        integers=vocabulary.integers,
    )
    fit = fit_budget(
        outlines_of(parts),
        pixels,
        lattice,
        tolerance=paths.trace_tolerance,
        budget=paths.max_new_tokens - BOX_AND_END_TOKENS,
        explicit=explicit,
        least_iou=least_iou(paths.trace_tolerance) if len(vocabulary.integers) > PATH_UNITS else 0.0,
    )
    polygons = fit.polygons if rng is None else shuffled_order(fit.polygons, rng)
    token_ids = _token_ids(polygons, vocabulary, paths, explicit)
    bins = np.zeros((len(token_ids), 2), np.int32)
    bins[:2, 0], bins[2] = lattice.box_bins[:2], lattice.box_bins[2:]
    return TracedTarget(token_ids=token_ids, bins=bins, box=lattice.box, iou=fit.iou, dropped_area=fit.dropped_area)


def _pixels(mask: np.ndarray | Mapping[str, Any]) -> np.ndarray:
    return (coco_mask.decode(dict(mask)) if isinstance(mask, Mapping) else mask) != 0


def _no_target(paths: PathConfig) -> TracedTarget:
    return TracedTarget(
        token_ids=np.array([paths.eos], np.int32),
        bins=np.zeros((1, 2), np.int32),
        box=np.zeros(4, np.float32),
        iou=1.0,
        dropped_area=0.0,
    )


def _token_ids(
    polygons: Sequence[np.ndarray], vocabulary: Vocabulary, paths: PathConfig, explicit: bool
) -> Int[np.ndarray, " length"]:
    letters = vocabulary.command_ids
    tokens = [np.array([paths.coord_token, paths.coord_token, paths.size_token])]
    for polygon in polygons:
        numbers = vocabulary.integer_ids[np.searchsorted(vocabulary.integers, polygon)]
        if explicit:
            numbers = np.insert(numbers, 0, letters["L"], axis=1).ravel()[1:]
        tokens += [np.array([letters["M"]]), numbers.ravel(), np.array([letters["Z"]])]
    return np.concatenate([*tokens, np.array([paths.eos])]).astype(np.int32)
