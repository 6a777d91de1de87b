"""Masks → closed lattice paths between pixels, where pixels that touch at a corner are judged one by one.

Source of the decomposition: Selinger, Potrace: a polygon-based tracing algorithm (2003), section 2.1.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

SPECK = 2
"""Outlines and holes of at most this many pixels are left out."""

_RINGS = (2, 3, 4)
"""Half sides, in pixels, of the squares whose rims decide at a corner where two diagonal pixels touch."""

_PAD = max(_RINGS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boundary:
    """One closed path along pixel edges."""

    points: np.ndarray
    """int64[n, 2]: every lattice point on the way, (x, y) in pixels; a step is one pixel long."""
    is_hole: bool


def boundaries(mask: Bool[np.ndarray, "height width"], speck: int = SPECK) -> tuple[Boundary, ...]:
    """Decomposes a mask into closed paths; all of them keep what they enclose on the same side.

    Rows are searched from the last to the first. Each path found is followed and its inside inverted, until
    nothing is left. Where two pixels touch at a corner only, the colour that is rarer around joins.

    Args:
      mask: any dtype; non-zero is foreground.
      speck: most pixels of paths that are left out.
    """
    height, width = mask.shape
    rest = np.zeros((height + 2 * _PAD, width + 2 * _PAD), bool)
    rest[_PAD:-_PAD, _PAD:-_PAD] = mask != 0
    original = rest.copy()
    found = []
    for row in range(_PAD + height - 1, _PAD - 1, -1):
        while rest[row].any():
            column = int(np.argmax(rest[row]))
            points, area = _follow(rest, column, row + 1)
            _invert_inside(rest, points)
            if area > speck:
                found.append(Boundary(points=points - _PAD, is_hole=not original[row, column]))
    return tuple(found)


def _follow(pixels: np.ndarray, x: int, y: int) -> tuple[Int[np.ndarray, "n 2"], int]:
    """Lattice points of the path that starts at (x, y) towards smaller y, and the pixels it encloses.

    Foreground lies on the side of (-dy, dx) as seen along the direction (dx, dy).
    """
    start, dx, dy, area = (x, y), 0, -1, 0
    points = []
    while True:
        points.append((x, y))
        x, y = x + dx, y + dy
        area -= x * dy
        if (x, y) == start:
            return np.array(points), abs(area)
        inner = pixels[y + (dx + dy - 1) // 2, x + (dx - dy - 1) // 2]
        outer = pixels[y + (dy - dx - 1) // 2, x + (dx + dy - 1) // 2]
        if outer and (inner or not _foreground_prevails(pixels, x, y)):
            dx, dy = dy, -dx
        elif not inner:
            dx, dy = -dy, dx


def _foreground_prevails(pixels: np.ndarray, x: int, y: int) -> bool:
    """Whether more than half of the nearest rim around a lattice point that is not evenly split is foreground."""
    inside = 0
    for half in (_RINGS[0] - 1, *_RINGS):
        square = int(np.count_nonzero(pixels[y - half : y + half, x - half : x + half]))
        surplus = 2 * (square - inside) - (8 * half - 4)
        if half >= _RINGS[0] and surplus:
            return surplus > 0
        inside = square
    return False


def _invert_inside(pixels: np.ndarray, points: Int[np.ndarray, "n 2"]) -> None:
    """Inverts the pixels a path encloses: everything to the right of each of its vertical steps, in turn."""
    following = np.roll(points, -1, axis=0)
    vertical = points[:, 0] == following[:, 0]
    crossings = np.zeros(pixels.shape, np.uint8)
    rows = np.minimum(points[vertical, 1], following[vertical, 1])
    np.bitwise_xor.at(crossings, (rows, points[vertical, 0]), 1)
    y0, y1 = rows.min(), rows.max() + 1
    pixels[y0:y1] ^= np.bitwise_xor.accumulate(crossings[y0:y1], axis=1).astype(bool)
