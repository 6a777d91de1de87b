"""One picture of before and after: annotated and consensus outlines side by side, kept instances first."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from moonseg_jax.clean.verdicts import Verdict
from moonseg_jax.errors import UserError

PANEL, GAP, TEXT_HEIGHT, COLUMNS = 176, 6, 62, 4
"""Sides in pixels of a picture of an object, of the gaps, of the words below it; instances side by side."""
MARGIN = 0.4
"""Around the object on every side, as a share of its larger side."""
BEFORE, AFTER = (255, 64, 64), (32, 208, 96)
"""Colours of the annotated outline and of the consensus."""


def write_contact_sheet(path: Path, kept: Sequence[Verdict], dropped: Sequence[Verdict], title: str) -> None:
    """Draws the sheet: a head line, the kept instances, the dropped ones with their reasons.

    Args:
      path: PNG file.
      kept: those to show.
      dropped: those to show.
      title: the head line.

    Raises:
      UserError: the file cannot be written.
    """
    width, head = COLUMNS * (2 * PANEL + 3 * GAP) + GAP, 26
    parts = [(name, part) for name, part in (("kept", kept), ("dropped", dropped)) if part]
    rows = sum(-(-len(part) // COLUMNS) for _, part in parts)
    step = PANEL + TEXT_HEIGHT + GAP
    sheet = Image.new("RGB", (width, head * (1 + len(parts)) + rows * step + GAP), (250, 250, 250))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((GAP, 6), f"{title}   red: annotated   green: members together", (0, 0, 0), ImageFont.load_default(15))
    y = head
    for name, part in parts:
        draw.text((GAP, y + 4), name, (0, 0, 0), ImageFont.load_default(15))
        y += head
        for number, verdict in enumerate(part):
            x = GAP + (number % COLUMNS) * (2 * PANEL + 3 * GAP)
            top = y + (number // COLUMNS) * step
            for k, panel in enumerate(panels_of(verdict)):
                sheet.paste(Image.fromarray(panel), (x + k * (PANEL + GAP), top))
            for line, words in enumerate(_words(verdict)):
                draw.text((x, top + PANEL + 2 + 15 * line), words, (40, 40, 40), font)
        y += -(-len(part) // COLUMNS) * step
    try:
        sheet.save(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name another --out") from error


def panels_of(verdict: Verdict) -> tuple[UInt8[np.ndarray, "P P 3"], UInt8[np.ndarray, "P P 3"]]:
    """The object before and after: the same window, with the annotated outline and with the consensus."""
    one, mask = verdict.instance, verdict.found.consensus
    return _panel(one.image, one.annotation, mask, BEFORE), _panel(one.image, mask, one.annotation, AFTER)


def _panel(
    image: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    other: Bool[np.ndarray, "H W"],
    colour: tuple[int, int, int],
) -> UInt8[np.ndarray, "P P 3"]:
    x, y, width, height = cv2.boundingRect((mask | other).astype(np.uint8))
    side = max(width, height, 1) * (1 + 2 * MARGIN)
    scale, cx, cy = PANEL / side, x + width / 2, y + height / 2
    # Pixel centres lie at halves in the image's frame, at whole numbers in OpenCV's.
    matrix = np.array(
        [[scale, 0, PANEL / 2 - scale * cx + (scale - 1) / 2], [0, scale, PANEL / 2 - scale * cy + (scale - 1) / 2]]
    )
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    panel = cv2.warpAffine(image, matrix, (PANEL, PANEL), flags=flags, borderValue=(200, 200, 200))
    enlarged = cv2.warpAffine(mask.astype(np.uint8), matrix, (PANEL, PANEL), flags=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(panel, outlines, -1, colour, 2)


def _words(verdict: Verdict) -> tuple[str, ...]:
    found = verdict.found
    phrase = verdict.phrases[0] if verdict.phrases else "(every phrase says a listed word)"
    more = f" (+{len(verdict.phrases) - 1})" if len(verdict.phrases) > 1 else ""
    asked = "" if found.phrase_iou is None else f"   phrase {found.phrase_iou:.2f}"
    numbers = f"agreement {found.agreement:.2f}   stay {found.stay:.2f}{asked}"
    return (*textwrap.wrap(phrase + more, 52)[:2], numbers, *((verdict.reason,) if verdict.reason else ()))
