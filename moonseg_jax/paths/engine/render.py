"""Path text over an image → a soft mask, as the official engine renders it, on the host.

Source: specification, section 10: drawn at twice the size with antialiasing, non-zero rule, averaged down.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.errors import UserError
from moonseg_jax.paths.engine.path_data import flatten, read_path_data
from moonseg_jax.paths.fill import fill

SCALE = 2
"""The engine draws at this many times the size of the image."""

FARTHEST_BOX = 1e4
"""Boxes are refused beyond it, in units of the image; their paths could not be drawn in floating point."""

SAMPLES = 4
"""Samples along each side of a drawn pixel."""

_TOLERANCE = 0.02
"""Pixels that a flattened curve may stray."""

_SAMPLES_AT_ONCE = 2**22


def render_path(path: str, box: Sequence[float], height: int, width: int) -> Float[np.ndarray, "height width"]:
    """Share of every pixel that a path covers.

    As renderers do, whatever comes after an error in the text is left out.

    Args:
      path: path data in units of the box.
      box: cx, cy, w, h in units of the image; the path is placed by `cx - w/2`, `cy - h/2`, unclipped.
      height: of the image, in pixels.
      width: of the image, in pixels.

    Raises:
      UserError: the box is not four finite numbers, or lies or reaches absurdly far outside the image.
    """
    if len(box) != 4 or not (np.abs(np.asarray(box, np.float64)) <= FARTHEST_BOX).all():
        raise UserError(
            f"box {[float(side) for side in box]}: give finite cx, cy, w, h in units of the image, "
            f"{FARTHEST_BOX:.0f} at most"
        )
    cx, cy, w, h = map(float, box)
    corner = np.array([(cx - w / 2) * width, (cy - h / 2) * height])
    extent = np.array([w * width, h * height])
    subpaths = read_path_data(path).subpaths
    return soft_fill([flatten(corner + subpath * extent, _TOLERANCE) for subpath in subpaths], height, width)


def coarse_mask(soft: Float[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """The mask of a rendered path: pixels more than half covered."""
    return soft > 0.5


def soft_fill(
    polygons: Sequence[Float[np.ndarray, "vertices 2"]], height: int, width: int
) -> Float[np.ndarray, "height width"]:
    """Share of every pixel that has a non-zero winding number, from 8 x 8 samples.

    Each quarter is rounded as 8-bit antialiasing does: of 16 samples k give min(16 k, 255) / 255. So a pixel cut
    in half counts as a little more than half.

    Args:
      polygons: closed subpaths, (x, y) in pixels.
      height: rows of the result.
      width: columns of the result.
    """
    fineness = SCALE * SAMPLES
    fine = [polygon * fineness for polygon in polygons]
    soft = np.empty((height, width), np.float32)
    rows = max(_SAMPLES_AT_ONCE // (width * fineness**2), 1)
    for top in range(0, height, rows):
        part = soft[top : top + rows]
        shifted = [polygon - (0, top * fineness) for polygon in fine]
        samples = fill(shifted, len(part) * fineness, width * fineness)
        drawn = samples.reshape(len(part) * SCALE, SAMPLES, width * SCALE, SAMPLES).sum(axis=(1, 3), dtype=np.float32)
        alpha = np.minimum(drawn * (256 / SAMPLES**2), 255) / 255
        part[:] = alpha.reshape(len(part), SCALE, width, SCALE).mean(axis=(1, 3))
    return soft
