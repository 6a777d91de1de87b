"""Where the members of an ensemble start: the annotated outline, and the same outline with small errors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.paths.close_fit import simplify_closely
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.trace import trace
from moonseg_jax.synthetic_pairs import jittered_box, true_box

TOLERANCE_PX = 0.5
"""Of the traced outline whose vertices are moved."""
BOX_JITTER = 0.1
"""Of the box that the crop is cut around, as a share of its width and height."""

Start = tuple[Bool[np.ndarray, "H W"], Float[np.ndarray, " 4"]]
"""A coarse mask, and its box cx, cy, w, h in units of the image."""


def starts_of(annotation: Bool[np.ndarray, "H W"], count: int, jitter: float, seed: tuple[int, ...]) -> list[Start]:
    """`count` starts for one instance: the annotation itself, then outlines with moved vertices in moved boxes.

    Args:
      annotation: the mask of the data set; where it is empty all starts are.
      count: at least 1.
      jitter: standard deviation of a vertex along both axes, as a share of the object's size (the square root of
        its area).
      seed: start k depends on this and k alone.
    """
    box = true_box(annotation)
    starts: list[Start] = [(annotation, box)]
    for number in range(1, count):
        rng = np.random.default_rng((*seed, number))
        starts.append((moved_outline(annotation, jitter, rng), jittered_box(box, BOX_JITTER, rng)))
    return starts


def moved_outline(mask: Bool[np.ndarray, "H W"], jitter: float, rng: np.random.Generator) -> Bool[np.ndarray, "H W"]:
    """The mask with normal errors on the vertices of its outlines; the mask itself where nothing would be left.

    Args:
      mask: to start from.
      jitter: see `starts_of`.
      rng: of the errors.
    """
    outlines = [polygon for part in trace(mask) for polygon in part.polygons]
    if not outlines:
        return mask
    scale = jitter * float(np.sqrt(np.count_nonzero(mask)))
    polygons = simplify_closely(outlines, mask, TOLERANCE_PX).polygons
    moved = fill([polygon + rng.normal(0.0, scale, polygon.shape) for polygon in polygons], *mask.shape)
    return moved if moved.any() else mask
