"""A contact sheet: photos with the outline of one target each, and its phrase below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from moonseg_jax.types import Example

TILES, COLUMNS, SIDE, CAPTION = 24, 6, 240, 44
"""Pictures on a sheet, in a row, and their pixels; and those of the lines below."""
OUTLINE, HALO = (255, 64, 64), (255, 255, 255)
CHARACTERS = 38
"""Of a line below a picture; two lines are shown."""


def contact_sheet(examples: Sequence[Example]) -> Image.Image:
    """Draws the sheet.

    Args:
      examples: at least one; the first `TILES` are drawn.
    """
    shown = examples[:TILES]
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * (SIDE + CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for position, example in enumerate(shown):
        left, top = position % COLUMNS * SIDE, position // COLUMNS * (SIDE + CAPTION)
        picture = outlined(example)
        sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
        lines = textwrap.wrap(example.phrase, CHARACTERS)[:2] or ["(empty phrase)"]
        draw.multiline_text((left + 6, top + SIDE + 4), "\n".join(lines), fill="black", font=font)
    return sheet


def outlined(example: Example) -> Image.Image:
    """The photo, shrunk or stretched into a tile, with the outline of the target."""
    height, width = example.image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    pixels = cv2.resize(example.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    if example.target is not None:
        mask = cv2.resize(coco_mask.decode(example.target), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        pixels = np.ascontiguousarray(pixels)
        cv2.drawContours(pixels, outlines, -1, HALO, 3)
        cv2.drawContours(pixels, outlines, -1, OUTLINE, 1)
    return Image.fromarray(pixels)
