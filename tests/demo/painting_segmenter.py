"""A segmenter that knows where "left" and "right" are, and draws that half piece by piece: for pages, not for masks."""

import time

import numpy as np

from moonseg_jax.errors import UserError
from moonseg_jax.segmentation import Segmentation
from moonseg_jax.status import REFINED
from moonseg_jax.streaming import BoxDrawn, Finished, PathPiece

HALVES = {"left": 0.25, "right": 0.75}
"""Phrase → centre of its half along x."""
PIECES = ("M 0 0", "L 1 0", "L 1 1", "L 0 1", "Z")


class PaintingSegmenter:
    """The coarse mask is the half, the refined one its upper part; remembers the clicks it was given."""

    def __init__(self, seconds=0.0):
        self.seconds, self.clicks = seconds, []

    def segment(self, image, phrase, spatial_refs=None, stream=False):
        assert stream
        if phrase not in HALVES:
            raise UserError(f"the vocabulary cannot say {phrase!r} <b>")
        self.clicks.append(tuple(spatial_refs))
        return self._stream(image, phrase)

    def _stream(self, image, phrase):
        left, right = HALVES[phrase] - 0.25, HALVES[phrase] + 0.25
        drawn_box = (HALVES[phrase], 0.5, 0.5, 1.0)
        yield BoxDrawn(number=0, box=(left, 0.0, right, 1.0), drawn_box=drawn_box)
        for text in PIECES:
            time.sleep(self.seconds)
            yield PathPiece(number=0, text=text)
        height, width = image.shape[:2]
        coarse, mask = np.zeros((2, height, width), bool)
        columns = slice(round(left * width), round(right * width))
        coarse[:, columns] = mask[: height // 2, columns] = True
        corners = np.array([(left, 0), (right, 0), (right, 1), (left, 1)], float)
        yield Finished(
            number=0,
            segmentation=Segmentation(
                image=image, phrase=phrase, path=" ".join(PIECES), drawn_box=drawn_box, box=(left, 0.0, right, 1.0),
                polygons=(corners,), coarse_mask=coarse, mask=mask, status=REFINED, score=0.75,
            ),
        )  # fmt: skip
