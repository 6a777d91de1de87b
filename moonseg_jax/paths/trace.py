"""Masks → outlines along the edges of pixels, on the host."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A connected piece of a mask: an outline and its holes, closed polygons of (x, y) in pixels."""

    outline: np.ndarray
    """[vertices, 2], clockwise as seen in the image (y points down)."""
    holes: tuple[np.ndarray, ...] = ()
    """[vertices, 2] each, counter-clockwise."""

    @property
    def polygons(self) -> tuple[np.ndarray, ...]:
        """The outline, then the holes."""
        return (self.outline, *self.holes)

    @property
    def area(self) -> float:
        """Area in square pixels, holes taken out."""
        return sum(signed_area(polygon) for polygon in self.polygons)


def signed_area(polygon: Float[np.ndarray, "vertices 2"]) -> float:
    """Shoelace area; positive if clockwise as seen in the image (y points down)."""
    x, y = polygon[:, 0].astype(np.float64), polygon[:, 1].astype(np.float64)
    return 0.5 * float(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0])


def oriented(polygon: Float[np.ndarray, "vertices 2"], *, clockwise: bool) -> Float[np.ndarray, "vertices 2"]:
    """The polygon, reversed if it runs the other way."""
    return polygon if (signed_area(polygon) > 0) == clockwise else polygon[::-1]


def trace(mask: Bool[np.ndarray, "height width"]) -> tuple[Part, ...]:
    """Outlines of a mask along its pixel edges: filling them gives the mask back exactly.

    Parts come by area descending, the holes of a part likewise. Pixels that touch at a corner belong to one
    part. Every vertex is a corner where a horizontal and a vertical pixel edge meet.

    Args:
      mask: any dtype; non-zero is foreground.

    Raises:
      UserError: the mask does not have two dimensions.
    """
    if mask.ndim != 2:
        raise UserError(f"mask of shape {mask.shape}: give one of height and width")
    if not mask.size:
        return ()
    mask = np.ascontiguousarray(mask != 0).view(np.uint8)
    x0, y0, w, h = cv2.boundingRect(mask)
    if w == 0:
        return ()
    # At twice the size every pixel edge has pixels of its own on the inner side, so that OpenCV's contours,
    # which run through pixel centres, map to pixel edges by (p + 1) // 2; padding keeps them off the border.
    doubled = np.zeros((2 * h + 2, 2 * w + 2), np.uint8)
    doubled[1:-1, 1:-1] = mask[y0 : y0 + h, x0 : x0 + w].repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(-1, -1))
    outlines: dict[int, np.ndarray] = {}
    holes: dict[int, list[np.ndarray]] = {}
    for index, contour in enumerate(contours):
        polygon = without_straight_vertices((contour[:, 0] + 1) // 2 + np.array([x0, y0], np.int32))
        parent = int(hierarchy[0, index, 3])
        if parent < 0:
            outlines[index] = oriented(polygon, clockwise=True)
        else:
            holes.setdefault(parent, []).append(oriented(polygon, clockwise=False))
    parts = [
        Part(outline=outline, holes=tuple(sorted(holes.get(index, []), key=signed_area)))
        for index, outline in outlines.items()
    ]
    return tuple(sorted(parts, key=lambda part: part.area, reverse=True))


def without_straight_vertices(polygon: Float[np.ndarray, "vertices 2"]) -> Float[np.ndarray, "fewer 2"]:
    """Drops vertices that do not turn: repeated ones, those between collinear edges and tips of spikes.

    Exact for integers. Nothing is left of a polygon without area in one line.
    """
    while True:
        into = polygon - np.concatenate([polygon[-1:], polygon[:-1]])
        polygon = polygon[into.any(axis=1)]
        into = polygon - np.concatenate([polygon[-1:], polygon[:-1]])
        out = np.concatenate([into[1:], into[:1]])
        turns = into[:, 0] * out[:, 1] != into[:, 1] * out[:, 0]
        if turns.all():
            return polygon
        polygon = polygon[turns]
