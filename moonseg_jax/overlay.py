"""Answers drawn over their photo: masks in colours with outlines and numbers, the phrases in a legend below."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from moonseg_jax.segmentation import Segmentation

COLOURS = (
    (230, 57, 70), (29, 132, 255), (255, 183, 3), (46, 196, 110), (181, 99, 255), (0, 190, 200), (255, 120, 40),
    (255, 90, 180),
)  # fmt: skip
"""Of the phrases, in turn."""
OPACITY = 0.45
SMALLEST, LARGEST = 480, 2000
"""Longer side of the picture, in pixels: smaller photos are enlarged by whole factors, larger ones shrunk."""
MARGIN, LETTER_SHARE = 8, 0.56
"""Pixels around the legend; width of a letter over its height, about."""


def overlay_picture(answers: Sequence[Segmentation]) -> Image.Image:
    """The photo with every mask on it, and a legend of number, phrase and predicted IoU or status.

    Args:
      answers: at least one, all of the same photo. Letters that the font lacks are drawn as boxes.
    """
    photo = at_viewing_size(answers[0].image)
    side = max(photo.shape[:2])
    stroke, letters = max(2, side // 300), max(14, side // 45)
    for number, answer in enumerate(answers):
        colour = COLOURS[number % len(COLOURS)]
        photo = with_mask(photo, resized(answer.mask, photo), colour, stroke)
    picture = Image.fromarray(photo)
    draw, font = ImageDraw.Draw(picture), _font(letters)
    for number, answer in enumerate(answers):
        place = _inside(resized(answer.mask, photo))
        if place is not None and len(answers) > 1:
            draw.text(place, str(number + 1), (255, 255, 255), font, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0))
    return _with_legend(picture, answers, letters)


def at_viewing_size(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The photo with its longer side in `SMALLEST` to `LARGEST` pixels; the photo itself where it lies there."""
    side = max(image.shape[:2])
    if SMALLEST <= side <= LARGEST:
        return image
    scale = math.ceil(SMALLEST / side) if side < SMALLEST else LARGEST / side
    size = tuple(max(1, round(n * scale)) for n in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)


def resized(mask: Bool[np.ndarray, "H W"], photo: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """The mask at the size of a photo, 0 and 1."""
    return cv2.resize(mask.astype(np.uint8), photo.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def with_mask(
    photo: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"], colour: tuple[int, int, int], stroke: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Half transparent inside, a light halo and a line of the colour around; holes have outlines too."""
    inside = mask[..., None] > 0
    mixed = (1 - OPACITY) * photo + OPACITY * np.array(colour)
    drawn = np.ascontiguousarray(np.where(inside, mixed, photo).astype(np.uint8))
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, (255, 255, 255), stroke + 2)
    return cv2.drawContours(drawn, outlines, -1, colour, stroke)


def _inside(mask: UInt8[np.ndarray, "h w"]) -> tuple[int, int] | None:
    """x, y of the pixel that is farthest from the mask's border; None in an empty mask."""
    if not mask.any():
        return None
    distance = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(column) - 1, int(row) - 1


def _with_legend(picture: Image.Image, answers: Sequence[Segmentation], letters: int) -> Image.Image:
    indent, step = 2 * letters, round(1.5 * letters)
    room = max(8, int((picture.width - indent - 2 * MARGIN) / (LETTER_SHARE * letters)))
    entries = [textwrap.wrap(_caption(number, answer), room) for number, answer in enumerate(answers)]
    height = picture.height + 2 * MARGIN + step * sum(map(len, entries))
    whole = Image.new("RGB", (picture.width, height), "white")
    whole.paste(picture, (0, 0))
    draw, font, y = ImageDraw.Draw(whole), _font(letters), picture.height + MARGIN
    for number, lines in enumerate(entries):
        draw.rectangle((MARGIN, y + 2, MARGIN + letters, y + 2 + letters), fill=COLOURS[number % len(COLOURS)])
        for line in lines:
            draw.text((MARGIN + indent, y), line, (20, 20, 20), font)
            y += step
    return whole


def _caption(number: int, answer: Segmentation) -> str:
    said = answer.status if math.isnan(answer.score) else f"predicted IoU {answer.score:.2f}"
    return f"{number + 1}  {answer.phrase}   ({said})"


@functools.lru_cache(maxsize=8)
def _font(letters: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font knows Latin letters only; this one comes with matplotlib and knows Greek, Cyrillic, Arabic too.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), letters)
