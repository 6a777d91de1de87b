"""Simplification that stays close to its mask: finer where a tolerance in pixels would cost too much of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from moonseg_jax.paths.fill import winding_numbers
from moonseg_jax.paths.simplify import Stairs
from moonseg_jax.paths.trace import oriented, signed_area, without_straight_vertices

LOSS_PER_PIXEL = 0.02
"""Largest loss of IoU for every pixel of tolerance: half a pixel may cost one percent."""

FINER_SHARES = (0.86, 0.74, 0.62, 0.52, 0.4, 0.2)
"""Shares of the tolerance that are tried in turn while the loss is larger; the exact outlines come last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloseFit:
    """Simplified outlines of one mask."""

    polygons: tuple[np.ndarray, ...]
    """float64[vertices, 2] each, in pixels, in the order and direction of the outlines; none has vanished."""
    tolerance: float
    """The one that was used, in pixels; 0 if the outlines were kept as they are."""
    iou: float
    """IoU of the point-sampled fill of the polygons with the mask."""


def least_iou(tolerance: float) -> float:
    """IoU that a simplification to this many pixels must keep."""
    return 1.0 - LOSS_PER_PIXEL * tolerance


def simplify_closely(
    outlines: Sequence[Int[np.ndarray, "vertices 2"]], mask: Bool[np.ndarray, "height width"], tolerance: float
) -> CloseFit:
    """Simplifies all outlines and holes of a mask with the coarsest tolerance that still draws it well.

    Half a pixel is little for a large object and much for one of ten pixels. So the tolerance is lowered until
    the IoU is at least `least_iou`, and until no pixel lies inside twice: then the rules nonzero and evenodd
    give the same mask. An outline that vanishes at a tolerance is simplified less instead.

    Args:
      outlines: closed polygons along pixel edges (see `trace`), at least one: the ones to draw.
      mask: what they enclose; non-zero is foreground.
      tolerance: the largest one, in pixels; 0 keeps the outlines as they are.
    """
    x0, y0, width, height = cv2.boundingRect((mask != 0).view(np.uint8))
    # Fitted vertices may leave the extent of the mask by a pixel.
    x1, y1, x0, y0 = x0 + width + 1, y0 + height + 1, max(x0 - 1, 0), max(y0 - 1, 0)
    window = mask[y0:y1, x0:x1] != 0
    stairs = [Stairs.of_outline(outline) for outline in outlines]
    for share in (1.0, *FINER_SHARES) if tolerance > 0 else ():
        polygons = tuple(_simplified(*pair, share * tolerance) for pair in zip(outlines, stairs))
        iou = drawn_iou([polygon - (x0, y0) for polygon in polygons], window)
        if iou is not None and iou >= least_iou(tolerance):
            return CloseFit(polygons=polygons, tolerance=share * tolerance, iou=iou)
    exact = tuple(outline.astype(np.float64) for outline in outlines)
    iou = drawn_iou([polygon - (x0, y0) for polygon in exact], window)
    assert iou is not None, "exact outlines meet at corners at most"
    return CloseFit(polygons=exact, tolerance=0.0, iou=iou)


def drawn_iou(
    polygons: Sequence[Float[np.ndarray, "vertices 2"]], mask: Bool[np.ndarray, "height width"]
) -> float | None:
    """IoU of what polygons draw, by pixel centres, with a mask; None if a centre lies inside twice or inside out."""
    winding = winding_numbers(polygons, *mask.shape)
    if winding.size and (winding.min() < 0 or winding.max() > 1):
        return None
    drawn = winding != 0
    union = np.count_nonzero(drawn | mask)
    return np.count_nonzero(drawn & mask) / union if union else 1.0


def _simplified(
    outline: Int[np.ndarray, "vertices 2"], stairs: Stairs, tolerance: float
) -> Float[np.ndarray, "fewer 2"]:
    """The outline within the tolerance, in its own direction; as it is where nothing would be left."""
    chosen = stairs.choose(tolerance)
    if len(chosen) < 3:
        return outline.astype(np.float64)
    polygon = stairs.fit(chosen)
    if len(without_straight_vertices(polygon)) < 3:
        return outline.astype(np.float64)
    return oriented(polygon, clockwise=signed_area(outline) > 0)
