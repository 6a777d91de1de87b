"""Figures of masks before and after every iteration, over all of them and over groups: object size, coarse IoU."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from moonseg_jax.metrics import LARGE_FROM, MEDIUM_FROM, MaskMetrics
from moonseg_jax.pairs import BANDS

ALL = "all"
SIZES = ("small", "medium", "large")
BAND_NAMES = tuple(f"coarse IoU {k / BANDS:.1f}–{(k + 1) / BANDS:.1f}" for k in range(BANDS))
"""The bands that pairs are kept by."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskFigures:
    """Held-out figures of some masks, see `metrics`."""

    miou: float
    ciou: float
    biou_2px: float
    biou_2pct: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Masks that belong together."""

    name: str
    """`all`, one of `SIZES` or of `BAND_NAMES`."""
    n: int
    iterations: tuple[MaskFigures, ...]
    """Of the coarse masks, then after 1, 2, … iterations; where one was not refined, of its coarse mask."""
    flood_fill: MaskFigures
    """What filling the colour under the same coarse masks gives."""


def measured(mask: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"]) -> MaskMetrics:
    """The metrics of one mask, to be merged with others."""
    metrics = MaskMetrics()
    metrics.add(mask, truth)
    return metrics


def size_of(truth: Bool[np.ndarray, "H W"]) -> str | None:
    """The size of an object as `metrics.by_object_size` has it, on the host; None for an empty mask."""
    share = np.count_nonzero(truth) / truth.size
    if not share:
        return None
    return SIZES[int(share >= MEDIUM_FROM) + int(share >= LARGE_FROM)]


def band_of(coarse_iou: float) -> str:
    """The fifth that an IoU lies in; 1 belongs to the last."""
    return BAND_NAMES[min(int(coarse_iou * BANDS), BANDS - 1)]


def grouped(
    iterations: Sequence[Sequence[MaskMetrics]], flood_fill: Sequence[MaskMetrics], truths: Sequence[np.ndarray]
) -> tuple[Group, ...]:
    """All masks, and those groups that hold some: sizes ascending, then bands.

    Args:
      iterations: of the coarse masks, then after every iteration: metrics of each mask by itself.
      flood_fill: the same of the flood fill.
      truths: bool[H, W] each, for the sizes.
    """
    sizes = [size_of(truth) for truth in truths]
    bands = [band_of(one.iou) for one in iterations[0]]
    groups = []
    for name in (ALL, *SIZES, *BAND_NAMES):
        rows = [i for i in range(len(truths)) if name in (ALL, sizes[i], bands[i])]
        if rows:
            of_group = tuple(_figures([masks[i] for i in rows]) for masks in iterations)
            flood = _figures([flood_fill[i] for i in rows])
            groups.append(Group(name=name, n=len(rows), iterations=of_group, flood_fill=flood))
    return tuple(groups)


def _figures(parts: Sequence[MaskMetrics]) -> MaskFigures:
    summary = functools.reduce(MaskMetrics.merge, parts).summary()
    return MaskFigures(**{field.name: summary[field.name] for field in dataclasses.fields(MaskFigures)})
