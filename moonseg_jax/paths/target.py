"""Masks → the completions that supervised learning imitates: box, path and EOS as tokens."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from pycocotools import mask as coco_mask

from moonseg_jax.config import PATH_UNITS, PathConfig, RegionConfig
from moonseg_jax.paths.boxes import bin_from_coordinate, bin_from_size, coordinate_from_bin, size_from_bin
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.simplify import Stairs
from moonseg_jax.paths.trace import Part, oriented, signed_area, trace, without_straight_vertices
from moonseg_jax.paths.vocabulary import Vocabulary

TOLERANCE_FACTOR = 1.25
"""Each attempt to fit the budget simplifies with this much more tolerance than the one before."""

LEAST_TOLERANCE = 0.25
"""Pixels; below this simplification would keep the stairs of slanted edges."""

LARGEST_SHARE = 0.3
"""While several outlines are left, it grows to this share of the square root of the largest area."""

Polygon = np.ndarray
"""int64[vertices, 2]: (x, y) in the 960-unit box."""


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
    """Pixels of parts (positive) and holes (also positive) left out because they did not fit."""


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
    quantised box, so its quantisation moves nothing; numbers outside 0..960 are clamped. The tolerance starts
    at `trace_tolerance` and is raised until the tokens fit; if that is not enough, the smallest outlines and
    holes are dropped one by one.

    Order: parts by area descending, holes after their outline, each polygon from its topmost, then leftmost
    vertex, outlines clockwise in the image.

    Args:
      mask: a mask, its COCO run-length encoding, or None for a phrase without target.
      rng: if given, every polygon starts at a random vertex, and all of them are reversed half of the time.
      explicit: write the letter of every line-to.
    """
    if isinstance(mask, Mapping):
        mask = coco_mask.decode(dict(mask))
    parts = () if mask is None else trace(mask)
    if mask is None or not parts:
        return TracedTarget(
            token_ids=np.array([paths.eos], np.int32),
            bins=np.zeros((1, 2), np.int32),
            box=np.zeros(4, np.float32),
            iou=1.0,
            dropped_area=0.0,
        )
    height, width = mask.shape
    box_bins, box = _quantised_box(parts, height, width, region)
    grid = _Grid(box=box, height=height, width=width, integers=vocabulary.integers)
    polygons, dropped_area = _fit(parts, grid, paths, explicit)
    if rng is not None:
        polygons = _shuffled(polygons, rng)
    path = [token for polygon in polygons for token in _polygon_tokens(polygon, vocabulary, explicit)]
    token_ids = np.array([paths.coord_token, paths.coord_token, paths.size_token, *path, paths.eos], np.int32)
    bins = np.zeros((len(token_ids), 2), np.int32)
    bins[:2, 0], bins[2] = box_bins[:2], box_bins[2:]
    drawn = fill([grid.pixels(polygon) for polygon in polygons], height, width)
    iou = float(np.count_nonzero(drawn & (mask != 0)) / np.count_nonzero(drawn | (mask != 0)))
    return TracedTarget(token_ids=token_ids, bins=bins, box=box, iou=iou, dropped_area=dropped_area)


def _quantised_box(
    parts: Sequence[Part], height: int, width: int, region: RegionConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Bins of cx, cy, w, h of the smallest box around the nearest centre that holds the mask, and that box.

    A nearest size would cut off up to half a bin, because path numbers end at the box.
    """
    outlines = np.concatenate([part.outline for part in parts])
    size = np.array([width, height])
    low, high = outlines.min(axis=0) / size, outlines.max(axis=0) / size
    centre_bins = bin_from_coordinate((low + high) / 2, region)
    centre = coordinate_from_bin(centre_bins, region)
    reach = 2 * np.maximum(high - centre, centre - low)
    size_bins = bin_from_size(reach, region)
    size_bins = np.minimum(
        size_bins + (size_from_bin(size_bins, region) < reach - 1e-6), region.size_bins - 1
    )
    return np.concatenate([centre_bins, size_bins]), np.concatenate(
        [centre, size_from_bin(size_bins, region)]
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Grid:
    """The lattice of path numbers of one box over one image."""

    box: np.ndarray
    height: int
    width: int
    integers: np.ndarray

    @property
    def _origin_and_extent(self) -> tuple[np.ndarray, np.ndarray]:
        size = np.array([self.width, self.height])
        return (self.box[:2] - self.box[2:] / 2) * size, self.box[2:] * size

    def numbers(self, points: np.ndarray) -> Polygon:
        """Nearest path numbers of points in pixels."""
        origin, extent = self._origin_and_extent
        between = (self.integers[1:] + self.integers[:-1]) / 2
        nearest = np.searchsorted(between, (points - origin) / extent * PATH_UNITS)
        return self.integers[nearest].astype(np.int64)

    def pixels(self, polygon: Polygon) -> np.ndarray:
        """Points in pixels of path numbers."""
        origin, extent = self._origin_and_extent
        return origin + polygon / PATH_UNITS * extent


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Outline:
    """One polygon of a part while it is being fitted."""

    corners: np.ndarray
    is_hole: bool
    stairs: Stairs
    area: float


def _outlines(parts: Sequence[Part]) -> list[_Outline]:
    return [
        _Outline(
            corners=polygon,
            is_hole=index > 0,
            stairs=Stairs.of_outline(polygon),
            area=abs(signed_area(polygon)),
        )
        for part in parts
        for index, polygon in enumerate(part.polygons)
    ]


def _fit(
    parts: Sequence[Part], grid: _Grid, paths: PathConfig, explicit: bool
) -> tuple[list[Polygon], float]:
    """Quantised polygons in canonical order whose tokens fit the budget, and the area that was dropped."""
    budget = paths.max_new_tokens - 4  # cx, cy, size and EOS
    outlines = _outlines(parts)
    smallest_first = sorted(range(len(outlines)), key=lambda index: outlines[index].area)
    surplus = max(len(outlines) - budget // _token_count(3, explicit), 0)
    for drops in range(surplus, len(outlines)):
        dropped = set(smallest_first[:drops])
        kept = [outline for index, outline in enumerate(outlines) if index not in dropped]
        for tolerance in _tolerances(paths, kept):
            chosen = [outline.stairs.choose(tolerance) for outline in kept]
            if sum(_token_count(len(indices), explicit) for indices in chosen if len(indices)) <= budget:
                polygons = [_quantised(outline, grid, indices) for outline, indices in zip(kept, chosen)]
                drawn = [polygon for polygon in polygons if len(polygon)]
                return drawn or [_rectangle(kept[0], grid)], sum(outlines[index].area for index in dropped)
    raise AssertionError("a single outline fits at some tolerance, or collapses to a rectangle")


def _tolerances(paths: PathConfig, kept: Sequence[_Outline]) -> Iterator[float]:
    """Growing tolerances: endless for a single outline, else up to a share of the largest outline's size."""
    tolerance = max(paths.trace_tolerance, LEAST_TOLERANCE)
    limit = max(tolerance, LARGEST_SHARE * math.sqrt(kept[0].area)) if len(kept) > 1 else math.inf
    while tolerance <= limit:
        yield tolerance
        tolerance *= TOLERANCE_FACTOR


def _quantised(outline: _Outline, grid: _Grid, chosen: np.ndarray) -> Polygon:
    """The fitted, quantised, canonical polygon; empty if it has no area left."""
    if not len(chosen):
        return np.zeros((0, 2), np.int64)
    polygon = without_straight_vertices(grid.numbers(outline.stairs.fit(chosen)))
    if len(polygon) < 3:
        return polygon[:0]
    polygon = oriented(polygon, clockwise=not outline.is_hole)
    return np.roll(polygon, -np.lexsort((polygon[:, 0], polygon[:, 1]))[0], axis=0)


def _rectangle(outline: _Outline, grid: _Grid) -> Polygon:
    """Bounding rectangle of an outline too small for anything finer, at least one grid step wide and high."""
    x0, y0 = np.searchsorted(grid.integers, grid.numbers(outline.corners.min(axis=0)))
    x1, y1 = np.searchsorted(grid.integers, grid.numbers(outline.corners.max(axis=0)))
    last = len(grid.integers) - 1
    x0, y0 = min(x0, last - 1), min(y0, last - 1)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    return grid.integers[np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])].astype(np.int64)


def _shuffled(polygons: Sequence[Polygon], rng: np.random.Generator) -> list[Polygon]:
    # All are reversed together: holes must keep running against their outlines.
    direction = 1 if rng.random() < 0.5 else -1
    return [np.roll(polygon, rng.integers(len(polygon)), axis=0)[::direction] for polygon in polygons]


def _token_count(vertices: int, explicit: bool) -> int:
    return 2 + 2 * vertices + (vertices - 1 if explicit else 0)


def _polygon_tokens(polygon: Polygon, vocabulary: Vocabulary, explicit: bool) -> Int[np.ndarray, " tokens"]:
    numbers = vocabulary.integer_ids[np.searchsorted(vocabulary.integers, polygon)]
    letters = vocabulary.command_ids
    if not explicit:
        return np.array([letters["M"], *numbers.ravel(), letters["Z"]], np.int32)
    lettered = np.insert(numbers, 0, letters["L"], axis=1)
    lettered[0, 0] = letters["M"]
    return np.append(lettered.ravel(), letters["Z"]).astype(np.int32)
