"""Mask → placed path: traced, simplified to a tolerance and quantised in the box of the path, on the host."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from moonseg_jax.config import PATH_UNITS
from moonseg_jax.errors import UserError
from moonseg_jax.paths.close_fit import simplify_closely
from moonseg_jax.paths.cubic_fit import fit_cubics
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.placed_path import MAX_NUMBERS, PlacedPath
from moonseg_jax.paths.trace import oriented, signed_area, trace, without_straight_vertices


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskPath:
    """The path of a mask, and how well it draws it."""

    path: PlacedPath
    parts: int
    """Outlines in the path."""
    holes: int
    vertices: int
    """Of polygons, or pieces of curves."""
    iou: float
    """Of what the path draws (by pixel centres) with the mask; 1 for an empty mask."""
    left_out: int
    """Outlines and holes beyond the budget."""
    lost: int
    """Pixels of the mask inside the outlines that were left out."""
    filled: int
    """Pixels of the background inside the holes that were left out."""


def path_of_mask(
    mask: Bool[np.ndarray, "height width"], *, tolerance: float, max_subpaths: int, curves: bool = False
) -> MaskPath:
    """Traces a mask; an empty one gives a path without commands in a box of zeros.

    Order: parts by area descending, holes after their outline; outlines clockwise in the image, holes against
    them. Where the tolerance would cost too much of the mask, it is lowered (see `close_fit`).
    The box is the extent of the path, which is the mask's to within a pixel.

    Args:
      mask: any dtype; non-zero is foreground.
      tolerance: of the simplification, in pixels; 0 keeps every pixel edge.
      max_subpaths: most outlines and holes; beyond, the ones that enclose least are left out.
      curves: fit cubics to the simplified outlines, within the tolerance of them once more, for export.

    Raises:
      UserError: the path would have too many numbers, or curves are asked for at a tolerance of 0.
    """
    height, width = mask.shape
    polygons = [(polygon, hole > 0) for part in trace(mask) for hole, polygon in enumerate(part.polygons)]
    if not polygons:
        empty = PlacedPath(box=(0.0, 0.0, 0.0, 0.0), commands=(), numbers=())
        return MaskPath(path=empty, parts=0, holes=0, vertices=0, iou=1.0, left_out=0, lost=0, filled=0)
    # A hole encloses less than its outline, so it never outlasts it.
    by_area = sorted(range(len(polygons)), key=lambda index: -abs(signed_area(polygons[index][0])))
    kept = [polygons[index] for index in sorted(by_area[:max_subpaths])]
    true = fill([polygon for polygon, _ in kept], height, width) if len(kept) < len(polygons) else mask != 0
    fitted = simplify_closely([polygon for polygon, _ in kept], true, tolerance).polygons
    if 2 * sum(map(len, fitted)) > MAX_NUMBERS:
        raise UserError(f"the path would have more than {MAX_NUMBERS} numbers; use a larger --tolerance")
    low, high = np.concatenate(fitted).min(axis=0), np.concatenate(fitted).max(axis=0)
    size = np.array([width, height])
    box = [*(low + high) / 2 / size, *(high - low) / size]
    if curves:
        chains = [np.rint((fit_cubics(points, tolerance) - low) / (high - low) * PATH_UNITS) for points in fitted]
        path, vertices = PlacedPath.from_cubics(chains, box), sum(map(len, chains))
    else:
        numbers = [
            _quantised(points, low, high, clockwise=not is_hole) for points, (_, is_hole) in zip(fitted, kept)
        ]  # fmt: skip
        path, vertices = PlacedPath.from_polygons(numbers, box), sum(map(len, numbers))
    drawn = fill(path.polygons(height, width), height, width)
    holes = sum(is_hole for _, is_hole in kept)
    return MaskPath(
        path=path, parts=len(kept) - holes, holes=holes, vertices=vertices,
        iou=float(np.count_nonzero(drawn & (mask != 0)) / np.count_nonzero(drawn | (mask != 0))),
        left_out=len(polygons) - len(kept), lost=int(np.count_nonzero((mask != 0) & ~true)),
        filled=int(np.count_nonzero(true & (mask == 0))),
    )  # fmt: skip


def _quantised(
    points: Float[np.ndarray, "vertices 2"], low: np.ndarray, high: np.ndarray, *, clockwise: bool
) -> Int[np.ndarray, "fewer 2"]:
    """Path numbers of a polygon; one that no longer has an area becomes the rectangle around it, a unit at least."""
    exact = (points - low) / (high - low) * PATH_UNITS
    polygon = without_straight_vertices(np.rint(exact).astype(np.int64))
    if len(polygon) < 3:
        x0, y0 = np.minimum(np.floor(exact.min(axis=0)), PATH_UNITS - 1).astype(np.int64)
        x1, y1 = np.maximum(np.ceil(exact.max(axis=0)).astype(np.int64), (x0 + 1, y0 + 1))
        polygon = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return oriented(polygon, clockwise=clockwise)
