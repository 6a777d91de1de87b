"""One answer as the page shows it: a row of pictures and words while it comes."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator

from moonseg_jax.demo.drawing import Picture, picture, picture_so_far
from moonseg_jax.demo.shared_model import SharedModel
from moonseg_jax.demo.visit import Visit
from moonseg_jax.segmentation import Segmentation
from moonseg_jax.streaming import BoxDrawn, Finished, PathPiece

LOOKING = "Looking at the photo …"
COMPILING = f"{LOOKING} The first answer takes longer: programs are compiled."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """The page at one moment."""

    visit: Visit
    """With the answer, once it is there."""
    picture: Picture | None
    path: str
    """SVG path text of the policy's outline so far."""
    words: str


def shown_turn(model: SharedModel, visit: Visit, phrase: str) -> Iterator[Shown]:
    """The page from the question to the answer: the photo, box, path piece by piece, and the refined mask.

    Args:
      model: draws.
      visit: its photo and clicks are used; an answer that it holds is forgotten.
      phrase: what to segment.

    Raises:
      UserError: see `SharedModel.answer`.
    """
    started = time.monotonic()
    visit = dataclasses.replace(visit, answer=None)
    yield Shown(visit=visit, picture=picture(visit, "photo"), path="", words=LOOKING if model.is_warm else COMPILING)
    box, path = (0.5, 0.5, 1.0, 1.0), ""
    for event in model.answer(visit, phrase):
        match event:
            case BoxDrawn():
                box = event.drawn_box
                yield Shown(visit=visit, picture=picture_so_far(visit, box, ""), path="", words="The box is there …")
            case PathPiece():
                path = f"{path} {event.text}".lstrip()
                so_far = picture_so_far(visit, box, path)
                yield Shown(visit=visit, picture=so_far, path=path, words="Drawing the path …")
            case Finished():
                visit = dataclasses.replace(visit, answer=event.segmentation)
                words = told(event.segmentation, time.monotonic() - started)
                yield Shown(visit=visit, picture=picture(visit, "refined mask"), path=path, words=words)


def told(answer: Segmentation, seconds: float) -> str:
    """The answer in a line.

    Args:
      answer: a finished one.
      seconds: that it took.
    """
    parts = [f"“{answer.phrase}”: {answer.status}", f"{answer.mask.mean():.1%} of the photo"]
    if not math.isnan(answer.score):
        parts.append(f"predicted IoU {answer.score:.2f}")
    if not math.isnan(answer.presence):
        parts.append(f"presence {answer.presence:.2f}")
    return ", ".join([*parts, f"{seconds:.1f} s"])
