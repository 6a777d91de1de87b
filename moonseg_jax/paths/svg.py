"""Polygons ↔ SVG path text relative to a box, and whole SVG documents, on the host.

The public answer is `{path, bbox}`: the path in units of the box, 0 to 1, with at most three decimals
(specification, sections 2 and 9).
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from moonseg_jax.errors import UserError

_WORD = re.compile(r"\s*(?:([A-Za-z])|(-?(?:\d+\.?\d*|\.\d+))),?")


def format_number(value: float) -> str:
    """At most three decimals, without trailing zeros or point; a minus stays, even before 0."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def path_text(polygons: Sequence[Float[np.ndarray, "vertices 2"]]) -> str:
    """SVG path data of closed polygons: absolute `M`, `L`, `Z`, joined by single blanks.

    Args:
      polygons: (x, y) in units of the box, 0 to 1.
    """
    words: list[str] = []
    for polygon in polygons:
        for index, (x, y) in enumerate(np.asarray(polygon, np.float64).tolist()):
            words += ["M" if index == 0 else "L", format_number(x), format_number(y)]
        words.append("Z")
    return " ".join(words)


def parse_polygons(text: str) -> list[Float[np.ndarray, "vertices 2"]]:
    """Reads path data of absolute `M`, `L` and `Z` strictly: nothing is repaired and nothing dropped.

    Several pairs after one letter are line-tos.

    Returns:
      One float64[vertices, 2] per subpath, in the units of the text.

    Raises:
      UserError: any other letter or sign, a number before the first `M`, a letter without pairs of numbers,
        a number too large to be finite, or a subpath that does not end with `Z`; the message gives the position.
    """
    polygons: list[np.ndarray] = []
    vertices: list[float] = []
    letter = "Z"
    for position, word, operands in _commands(text):
        where = f"path text, position {position}: "
        if word not in ("M", "L", "Z"):
            raise UserError(f"{where}command {word!r} is not one of M, L, Z")
        if (word == "M") != (letter == "Z"):
            raise UserError(f"{where}{word} after {letter}; a subpath is M …, L …, Z")
        if word == "Z" and operands:
            raise UserError(f"{where}number {operands[0]} after Z")
        if word != "Z" and (not operands or len(operands) % 2):
            raise UserError(f"{where}{word} needs pairs of numbers and has {len(operands)} numbers")
        vertices += map(float, operands)
        if not all(map(math.isfinite, vertices[-len(operands) :] if operands else ())):
            raise UserError(f"{where}{word} has a number too large to draw")
        if word == "Z":
            polygons.append(np.array(vertices).reshape(-1, 2))
            vertices = []
        letter = word
    if letter != "Z":
        raise UserError("path text: the last subpath is not closed; end it with Z")
    return polygons


def _commands(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Position, letter and numbers of every command."""
    position, end = 0, len(text.rstrip())
    start, letter = 0, ""
    operands: list[str] = []
    while position < end:
        word = _WORD.match(text, position)
        if word is None:
            excerpt = text[position : position + 10]
            raise UserError(f"path text, position {position}: {excerpt!r} is not path data")
        if word[1]:
            if letter:
                yield start, letter, operands
            start, letter, operands = position, word[1], []
        elif letter:
            operands.append(word[2])
        else:
            raise UserError(f"path text, position {position}: number {word[2]} before the first command")
        position = word.end()
    if letter:
        yield start, letter, operands


def svg_document(
    path: str,
    box: Sequence[float],
    *,
    width: int,
    height: int,
    fill: str = "white",
    image_href: str | None = None,
    title: str = "",
) -> str:
    """An SVG document that draws a path at its place over an image.

    Args:
      path: path data in units of the box.
      box: cx, cy, w, h in units of the image; the path is placed by `cx - w/2`, `cy - h/2`, unclipped.
      width: of the image, in pixels.
      height: of the image, in pixels.
      fill: colour of the inside; the rule is nonzero.
      image_href: the image to draw beneath, an address or a data URI.
      title: what the drawing is, for readers and for browsers to show.

    Raises:
      UserError: the box is not finite.
    """
    cx, cy, w, h = box
    if not all(map(math.isfinite, (cx, cy, w, h))):
        raise UserError(f"box {[float(side) for side in box]}: give finite cx, cy, w, h in units of the image")
    x, y = float(cx) - float(w) / 2, float(cy) - float(h) / 2
    beneath = ""
    if image_href is not None:
        beneath = f'<image href="{html.escape(image_href)}" width="1" height="1" preserveAspectRatio="none"/>'
    named = f"<title>{html.escape(title)}</title>" if title else ""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" preserveAspectRatio="none" '
        f'width="{width}" height="{height}">{named}{beneath}'
        f'<path d="{html.escape(path)}" fill="{html.escape(fill)}" '
        f'transform="translate({x},{y}) scale({w},{h})"/></svg>'
    )
