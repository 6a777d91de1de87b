"""A handful of rollouts written by hand: rectangles for a square, on a raster of 16 x 16."""

from __future__ import annotations

import numpy as np

from moonseg_jax.rollout.stored import StoredRollouts
from moonseg_jax.types import FINISH_CLOSED

SIDE = 16
TRUE = (4, 4, 12, 12)
"""64 pixels."""
DRAWN = (((4, 4, 12, 12), (4, 4, 12, 8), (4, 4, 8, 8)), ((4, 4, 12, 8), (4, 8, 12, 12), (4, 4, 8, 12)))
"""x0, y0, x1, y1 in pixels of the samples of two groups: IoU 1, 1/2, 1/4, and three halves."""
LENGTHS = ((50, 20, 10), (10, 10, 10))
REFERENCE = 20


def stored() -> StoredRollouts:
    boxes = np.asarray(DRAWN, np.float32) / SIDE
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    corners = np.stack([np.stack(pair, -1) for pair in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], axis=2)
    truth = np.zeros((2, SIDE, SIDE), bool)
    truth[:, TRUE[1] : TRUE[3], TRUE[0] : TRUE[2]] = True
    return StoredRollouts(
        steps=np.array([7, 8]), example_ids=np.array([30, 31]), reference_lengths=np.full(2, REFERENCE), truth=truth,
        lengths=np.array(LENGTHS), finish=np.full((2, 3), FINISH_CLOSED),
        box=np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=-1),
        points=np.stack([corners, np.roll(corners, -1, axis=2)], axis=3), valid=np.ones((2, 3, 4), bool),
        subpath=np.zeros((2, 3, 4), int),
    )  # fmt: skip
