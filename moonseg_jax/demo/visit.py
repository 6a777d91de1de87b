"""What one visitor has before them: a photo, where they clicked, and the answer; a new value at every step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from moonseg_jax.errors import UserError
from moonseg_jax.segmentation import Segmentation
from moonseg_jax.spatial_refs import prompt_references, reference_from_text
from moonseg_jax.still_image import decode_still

Click = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visit:
    """Belongs to one open page; nothing of it is shared."""

    photo: UInt8[np.ndarray, "H W 3"] | None = None
    clicks: tuple[Click, ...] = ()
    """(x, y) in units of the photo: none, a point, or two corners of a box."""
    answer: Segmentation | None = None
    known_phrase: str = ""
    """The phrase whose true mask is known, with examples."""
    truth: Bool[np.ndarray, "H W"] | None = None
    """Its mask."""

    @property
    def references(self) -> tuple[tuple[float, ...], ...]:
        """The clicks as `Segmenter.segment` takes them: a point, or x_min, y_min, x_max, y_max."""
        if len(self.clicks) < 2:
            return self.clicks
        (x0, y0), (x1, y1) = self.clicks
        return ((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)),)

    @property
    def where(self) -> str:
        """The reference as `pointed` reads it, such as `0.2500, 0.5000`; empty without one."""
        return ", ".join(f"{value:.4f}" for reference in self.references for value in reference)

    @property
    def known_truth(self) -> Bool[np.ndarray, "H W"] | None:
        """The true mask of what the answer is about, where it is known."""
        is_known = self.answer is not None and self.answer.phrase == self.known_phrase
        return self.truth if is_known else None

    def clicked(self, click: Click) -> Visit:
        """A first click is a point, a second one in another row and column makes a box of both, a third starts anew.

        Args:
          click: (x, y) in units of the photo; what lies outside is moved to the border.
        """
        x, y = (min(max(float(value), 0.0), 1.0) for value in click)
        is_corner = len(self.clicks) == 1 and x != self.clicks[0][0] and y != self.clicks[0][1]
        return dataclasses.replace(self, clicks=(*self.clicks, (x, y)) if is_corner else ((x, y),))

    def pointed(self, where: str) -> Visit:
        """The point or box that a text says, in place of the one before.

        Args:
          where: `x, y` or `x_min, y_min, x_max, y_max`, in units of the photo; blank for neither.

        Raises:
          UserError: something else, or a place outside of the photo.
        """
        if where.strip() == self.where:
            return self
        if not where.strip():
            return dataclasses.replace(self, clicks=())
        reference = reference_from_text(where)
        prompt_references((reference,))
        clicks = tuple(zip(reference[::2], reference[1::2], strict=True))
        return dataclasses.replace(self, clicks=clicks)


def open_photo(file: Path) -> Visit:
    """A visit that begins with a file.

    Raises:
      UserError: not an image, an animation, or larger than `images.ImageLimits`; names the file without its folder.
    """
    try:
        return Visit(photo=decode_still(file))
    except UserError as error:
        raise UserError(str(error).replace(str(file), file.name)) from error
