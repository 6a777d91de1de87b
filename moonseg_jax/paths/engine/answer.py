"""One completion → the answer of the official engine: path, box, points and what was wrong.

Source: specification, sections 8 and 9; field names are those of the engine's `segments`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from moonseg_jax.paths.boxes import corners_from_box
from moonseg_jax.paths.curves.refined_path import RefinedPath
from moonseg_jax.paths.engine.completion_text import CompletionTextError, path_from_tokens
from moonseg_jax.paths.vocabulary import Vocabulary

Corners = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in units of the image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentAnswer:
    """What a completion says, before and after refinement."""

    phrase: str
    text: str
    """The completion's text as the tokenizer writes it."""
    path_tokens: tuple[str, ...]
    """Its pieces, one per token."""
    token_ids: tuple[int, ...]
    """Text tokens, EOS included, without those of the box."""
    points: tuple[tuple[float, float], ...]
    """Consecutive pairs of coordinates, clipped to the image."""
    sizes: tuple[tuple[float, float], ...]
    """Widths and heights, clipped to [0, 1]."""
    coarse_path: str
    """Path text in units of the box; empty where the text is no path."""
    coarse_box: Corners | None
    """None unless there are two coordinates and a size."""
    parse_error: str | None
    """Why the text is no path, in the engine's words."""
    refined: RefinedPath | None = None
    """What the refiner made of it."""

    def to_json(self) -> dict[str, Any]:
        """The entry of the engine's `segments`; fields without a value are left out, as there."""
        path = self.coarse_path if self.refined is None else self.refined.path
        box = self.coarse_box if self.refined is None else self.refined.box
        optional = {
            "parse_error": self.parse_error,
            "bbox": _named_corners(box),
            "coarse_bbox": _named_corners(self.coarse_box),
            "sizes": [{"width": width, "height": height} for width, height in self.sizes] or None,
        }
        return {
            "object": self.phrase,
            "text": self.text,
            "svg_path": path,
            "path_tokens": list(self.path_tokens),
            "token_ids": list(self.token_ids),
            "points": [{"x": x, "y": y} for x, y in self.points],
            "coarse_path": self.coarse_path,
            **{name: value for name, value in optional.items() if value is not None},
        }


def segment_answer(
    phrase: str,
    token_ids: Sequence[int],
    coordinates: Sequence[float],
    sizes: Sequence[tuple[float, float]],
    vocabulary: Vocabulary,
) -> SegmentAnswer:
    """The coarse answer of one completion.

    Args:
      phrase: what was asked for.
      token_ids: its text tokens in order; those of coordinates and sizes left out.
      coordinates: values of its coordinate tokens, in units of the image.
      sizes: widths and heights of its size tokens, in units of the image.
      vocabulary: what tokens mean.
    """
    path, parse_error = "", None
    try:
        path = path_from_tokens(token_ids, vocabulary)
    except CompletionTextError as error:
        parse_error = error.engine_message
    clipped = [min(max(value, 0.0), 1.0) for value in coordinates]
    return SegmentAnswer(
        phrase=phrase,
        text=vocabulary.tokenizer.decode(list(token_ids)).strip(),
        path_tokens=tuple(vocabulary.pieces(token_ids)),
        token_ids=tuple(token_ids),
        points=tuple(zip(clipped[::2], clipped[1::2])),
        sizes=tuple((min(max(width, 0.0), 1.0), min(max(height, 0.0), 1.0)) for width, height in sizes),
        coarse_path=path,
        coarse_box=answer_box(coordinates, sizes),
        parse_error=parse_error,
    )


def answer_box(coordinates: Sequence[float], sizes: Sequence[tuple[float, float]]) -> Corners | None:
    """Corners, clipped to the image, of the box that the first two coordinates and the first size describe.

    None where one of them is missing.
    """
    if len(coordinates) < 2 or not sizes:
        return None
    box: Any = np.array([*coordinates[:2], *sizes[0]], np.float64)
    x0, y0, x1, y1 = corners_from_box(box)
    return float(x0), float(y0), float(x1), float(y1)


def _named_corners(box: Corners | None) -> dict[str, float] | None:
    return None if box is None else dict(zip(("x_min", "y_min", "x_max", "y_max"), box))
