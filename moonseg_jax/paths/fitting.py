"""Outlines → quantised polygons that fit a budget of tokens, on the host."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from moonseg_jax.paths.close_fit import FINER_SHARES
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.lattice import Lattice
from moonseg_jax.paths.simplify import Stairs
from moonseg_jax.paths.trace import Part, oriented, signed_area, without_straight_vertices

TOLERANCE_FACTOR = 1.25
"""Each attempt to fit the budget simplifies with this much more tolerance than the one before."""

LEAST_TOLERANCE = 0.25
"""Pixels; below this simplification would keep the stairs of slanted edges."""

LARGEST_SHARE = 0.5
"""While several outlines are left, tolerance grows to this share of the square root of the largest area."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
    """One outline or hole of a mask while it is being fitted."""

    corners: np.ndarray
    """int[vertices, 2]: the exact outline in pixels."""
    is_hole: bool
    area: float
    """Area inside, positive, in square pixels."""
    stairs: Stairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """Polygons that fit a budget."""

    polygons: tuple[np.ndarray, ...]
    """int64[vertices, 2] each, path numbers: parts by area descending, holes after their outline; outlines
    clockwise in the image, holes against them, each from its topmost, then leftmost vertex."""
    iou: float
    """IoU of the point-sampled fill of the polygons with the mask."""
    dropped_area: float
    """Square pixels inside the outlines and holes that were left out."""


def outlines_of(parts: Sequence[Part]) -> list[Outline]:
    """All outlines and holes, in order."""
    return [
        Outline(
            corners=polygon,
            is_hole=index > 0,
            area=abs(signed_area(polygon)),
            stairs=Stairs.of_outline(polygon),
        )
        for part in parts
        for index, polygon in enumerate(part.polygons)
    ]


def polygon_tokens(vertices: int, *, explicit: bool) -> int:
    """Tokens of a polygon: `M`, two numbers a vertex, `Z`, and in the explicit dialect every `L`."""
    return 2 + 2 * vertices + (vertices - 1 if explicit else 0)


def fit_budget(
    outlines: Sequence[Outline],
    mask: Bool[np.ndarray, "height width"],
    lattice: Lattice,
    *,
    tolerance: float,
    budget: int,
    explicit: bool,
    least_iou: float = 0.0,
) -> Fit:
    """Simplifies and quantises until the tokens fit.

    The tolerance is raised step by step. Where it has to be raised, leaving out the smallest outlines is
    tried as well, one more at a time for as long as the mask is drawn better for it. Where it need not be
    raised but the mask is drawn worse than wanted, it is lowered for as long as the tokens fit.

    Args:
      outlines: of all parts, the largest part first.
      mask: what the outlines were traced from.
      lattice: the path numbers.
      tolerance: the first one, in pixels.
      budget: tokens there are for polygons; at least those of a quadrilateral.
      explicit: count the letter of every line-to.
      least_iou: the wanted IoU with the mask.
    """
    smallest_first = sorted(range(len(outlines)), key=lambda index: outlines[index].area)
    most = max(budget // polygon_tokens(3, explicit=explicit), 1)
    best: Fit | None = None
    for drops in range(max(len(outlines) - most, 0), len(outlines)):
        dropped = set(smallest_first[:drops])
        kept = [outline for index, outline in enumerate(outlines) if index not in dropped]
        fitted = _raise_tolerance(kept, lattice, tolerance, budget, explicit)
        if fitted is None:
            continue
        polygons, raised = fitted
        missing = sum(outline.area for outline in outlines) - sum(
            outline.area for outline, polygon in zip(kept, polygons) if len(polygon)
        )
        drawn = tuple(polygon for polygon in polygons if len(polygon))
        fit = Fit(polygons=drawn, iou=_iou(drawn, mask, lattice), dropped_area=missing)
        if best is not None and fit.iou <= best.iou:
            return best
        best = fit
        if not raised and not drops and fit.iou < least_iou:
            return _lower_tolerance(fit, outlines, mask, lattice, tolerance, budget, explicit, least_iou)
        if not raised:
            return best
    assert best is not None, "a single outline always fits: it collapses to a rectangle"
    return best


def _raise_tolerance(
    kept: Sequence[Outline], lattice: Lattice, tolerance: float, budget: int, explicit: bool
) -> tuple[list[np.ndarray], bool] | None:
    """Polygons of all outlines (empty for those below the first tolerance), and whether it had to be raised.

    Outlines that collapse on the way keep their coarsest form; a single one becomes its bounding rectangle.
    """
    first, *higher = _tolerances(kept, tolerance)
    chosen = [outline.stairs.choose(first) for outline in kept]
    raised = False
    while True:
        counts = [polygon_tokens(len(indices), explicit=explicit) for indices in chosen if len(indices)]
        if sum(counts) <= budget:
            break
        if not higher:
            return ([lattice.enclosing_rectangle(kept[0].corners)], True) if len(kept) == 1 else None
        step, *higher = higher
        coarser = [outline.stairs.choose(step) for outline in kept]
        chosen = [new if len(new) else old for new, old in zip(coarser, chosen)]
        raised = True
    polygons = [_quantised(outline, lattice, indices) for outline, indices in zip(kept, chosen)]
    if not any(map(len, polygons)):
        polygons[0] = lattice.enclosing_rectangle(kept[0].corners)
    return polygons, raised


def _lower_tolerance(
    fit: Fit,
    outlines: Sequence[Outline],
    mask: Bool[np.ndarray, "height width"],
    lattice: Lattice,
    tolerance: float,
    budget: int,
    explicit: bool,
    least_iou: float,
) -> Fit:
    """The coarsest finer fit with the wanted IoU, otherwise the best one whose tokens fit."""
    for share in (*FINER_SHARES, 0.0):
        polygons = [_closer(outline, lattice, share * tolerance) for outline in outlines]
        if sum(polygon_tokens(len(polygon), explicit=explicit) for polygon in polygons if len(polygon)) > budget:
            break
        dropped = sum(outline.area for outline, polygon in zip(outlines, polygons) if not len(polygon))
        drawn = tuple(polygon for polygon in polygons if len(polygon))
        finer = Fit(polygons=drawn, iou=_iou(drawn, mask, lattice), dropped_area=dropped)
        fit = finer if finer.iou > fit.iou else fit
        if fit.iou >= least_iou:
            break
    return fit


def _closer(outline: Outline, lattice: Lattice, tolerance: float) -> Int[np.ndarray, "vertices 2"]:
    """The quantised polygon of a tolerance; that of the exact outline where it is 0 or nothing would be left."""
    chosen = outline.stairs.choose(tolerance) if tolerance > 0 else outline.stairs.candidates[:0]
    points = outline.stairs.fit(chosen) if len(chosen) else outline.corners.astype(np.float64)
    return _canonical(points, lattice, is_hole=outline.is_hole)


def _tolerances(kept: Sequence[Outline], tolerance: float) -> Iterator[float]:
    tolerance = max(tolerance, LEAST_TOLERANCE)
    limit = max(tolerance, LARGEST_SHARE * math.sqrt(max(outline.area for outline in kept)))
    while tolerance <= limit:
        yield tolerance
        tolerance *= TOLERANCE_FACTOR


def _quantised(outline: Outline, lattice: Lattice, chosen: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, "vertices 2"]:
    """The fitted, quantised polygon in canonical order; empty if it has no area left."""
    if not len(chosen):
        return np.zeros((0, 2), np.int64)
    return _canonical(outline.stairs.fit(chosen), lattice, is_hole=outline.is_hole)


def _canonical(
    points: Float[np.ndarray, "vertices 2"], lattice: Lattice, *, is_hole: bool
) -> Int[np.ndarray, "fewer 2"]:
    polygon = without_straight_vertices(lattice.numbers(points))
    if len(polygon) < 3:
        return polygon[:0]
    polygon = oriented(polygon, clockwise=not is_hole)
    return np.roll(polygon, -np.lexsort((polygon[:, 0], polygon[:, 1]))[0], axis=0)


def _iou(polygons: Sequence[np.ndarray], mask: Bool[np.ndarray, "height width"], lattice: Lattice) -> float:
    """IoU within the window of the box, which holds the mask and the polygons."""
    height, width = mask.shape
    x0, y0 = np.maximum(np.floor(lattice.origin), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(lattice.origin + lattice.extent), (width, height)).astype(int)
    drawn = fill([lattice.pixels(polygon) - (x0, y0) for polygon in polygons], y1 - y0, x1 - x0)
    window = mask[y0:y1, x0:x1]
    return float(np.count_nonzero(drawn & window) / np.count_nonzero(drawn | window))
