"""Masks → the smooth path of a refined answer: SVG text and the box it is relative to, on the host.

Source: specification, section 11.8. Curves follow Selinger, Potrace: a polygon-based tracing algorithm (2003).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.paths.curves.boundary import SPECK, boundaries
from moonseg_jax.paths.curves.join_pieces import ClosedCurve, join_pieces
from moonseg_jax.paths.curves.optimal_polygon import Moments, optimal_polygon
from moonseg_jax.paths.curves.smooth import smooth


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinedPath:
    """A path and its box."""

    path: str
    """SVG path data in units of the box."""
    box: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max in units of the image: the extent of the mask's pixels."""
    curves: tuple[ClosedCurve, ...]
    """What the path draws, in pixels."""


def refined_path(mask: Bool[np.ndarray, "height width"]) -> RefinedPath | None:
    """Traces a mask with corners and Béziers; None if it is empty, or holds nothing but specks.

    Args:
      mask: any dtype; non-zero is foreground.
    """
    height, width = mask.shape
    curves = trace_curves(mask)
    if not curves:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corner = np.array([columns[0], rows[0]])
    extent = np.array([columns[-1] + 1, rows[-1] + 1]) - corner
    x0, y0, x1, y1 = (float(side) for side in (*corner, *(corner + extent)))
    return RefinedPath(
        path=curves_text([(curve.points - corner) / extent for curve in curves], [c.is_corner for c in curves]),
        box=(x0 / width, y0 / height, x1 / width, y1 / height),
        curves=curves,
    )


def trace_curves(mask: Bool[np.ndarray, "height width"], speck: int = SPECK) -> tuple[ClosedCurve, ...]:
    """Smooth closed curves around a mask, in pixels; holes run against outlines.

    Args:
      mask: any dtype; non-zero is foreground.
      speck: outlines and holes of at most this many pixels are left out.
    """
    curves = []
    for boundary in boundaries(mask, speck):
        moments = Moments.of(boundary.points)
        curves.append(join_pieces(smooth(moments, optimal_polygon(moments), reverse=boundary.is_hole)))
    return tuple(curves)


def curves_text(points: Sequence[Float[np.ndarray, "m 3 2"]], is_corner: Sequence[Bool[np.ndarray, " m"]]) -> str:
    """SVG path data of closed curves, in the compact writing of the official engine.

    Args:
      points: as in `ClosedCurve`, in units of the box.
      is_corner: as in `ClosedCurve`.
    """
    words = []
    for pieces, corners in zip(points, is_corner):
        words.append(f"M{_pair(pieces[-1, 2])}")
        for (first, second, end), corner in zip(pieces, corners):
            straight = f"L{_pair(first)}L{_pair(end)}"
            words.append(straight if corner else f"C{_pair(first)},{_pair(second)},{_pair(end)}")
        words.append("z")
    return "".join(words)


def _pair(point: Float[np.ndarray, " 2"]) -> str:
    """Three decimals; no zero before the point, except after a minus."""
    return ",".join(f"{value:.3f}".removeprefix("0") for value in point)
