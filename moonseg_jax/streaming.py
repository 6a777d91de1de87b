"""An answer as it comes: the box, pieces of the path while it is decoded, then the refined result."""

from __future__ import annotations

import dataclasses

from moonseg_jax.evaluate import Prediction
from moonseg_jax.paths.boxes import corners_from_box
from moonseg_jax.segmentation import Box, Segmentation

CHUNKS = (3, 8)
"""Tokens decoded until the first look, which are those of a box, and between two looks from then on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxDrawn:
    """The box is there; nothing of the path is."""

    number: int
    """Of the phrase, from 0."""
    box: Box
    """x_min, y_min, x_max, y_max in units of the image, clipped to it."""
    drawn_box: Box
    """cx, cy, w, h as decoded, which the path is relative to; it may reach over the border."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathPiece:
    """The next commands of the coarse path."""

    number: int
    """Of the phrase, from 0."""
    text: str
    """SVG path text relative to the box. All pieces of a phrase, joined by blanks, are `Segmentation.path`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """The answer, refined."""

    number: int
    """Of the phrase, from 0."""
    segmentation: Segmentation


StreamEvent = BoxDrawn | PathPiece | Finished


class PathProgress:
    """What of one phrase was told already."""

    def __init__(self, number: int):
        """Nothing was told.

        Args:
          number: of the phrase.
        """
        self._number, self._sent, self._has_box = number, "", False

    def news(self, drawn: Prediction, *, is_done: bool) -> list[StreamEvent]:
        """What is to be told of what is drawn so far.

        Args:
          drawn: box and vertices so far; an unfinished path is closed in its drawing, but not told as closed.
          is_done: whether all is drawn.
        """
        events: list[StreamEvent] = []
        if not self._has_box and drawn.box.any():
            self._has_box = True
            x0, y0, x1, y1 = (float(side) for side in corners_from_box(drawn.box))  # type: ignore[arg-type]
            cx, cy, width, height = (float(value) for value in drawn.box)
            placed: Box = (cx, cy, width, height)
            events.append(BoxDrawn(number=self._number, box=(x0, y0, x1, y1), drawn_box=placed))
        text = drawn.path() if is_done else drawn.path().removesuffix("Z").rstrip()
        if len(text) > len(self._sent) and text.startswith(self._sent):
            events.append(PathPiece(number=self._number, text=text[len(self._sent) :].lstrip()))
            self._sent = text
        return events
