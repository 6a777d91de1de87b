"""A placed path ↔ an SVG document in pixels of the image, which a browser draws at its place over the photo."""

from __future__ import annotations

import html
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Literal

from moonseg_jax.config import PATH_UNITS
from moonseg_jax.errors import UserError
from moonseg_jax.paths.placed_path import PlacedPath, commands_of_text

FILL = "#ff2d95"
FILL_OPACITY = 0.5
"""Half transparent, so that the photo beneath stays visible."""

_SVG = "http://www.w3.org/2000/svg"
_DRAWS_NOTHING = ("image", "title", "desc", "metadata")
_CHANGES_THE_DRAWING = ("style", "clip-path", "mask")
_TRANSFORM = re.compile(r"[\s,]*([A-Za-z]+)\s*\(([^()]*)\)[\s,]*")
_NO_DOCTYPE = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)

Placement = tuple[float, float, float, float]
"""Scale along x and y, then shift: x ↦ sx x + tx."""


def svg_of_path(path: PlacedPath, *, height: int, width: int, photo: str | None = None) -> str:
    """An SVG document whose view box is the image in pixels; the path keeps its numbers and is placed by a transform.

    Args:
      path: what to draw.
      height: of the image, in pixels.
      width: of the image, in pixels.
      photo: address or data URI of the image to show beneath.
    """
    cx, cy, w, h = path.box
    shift = f"translate({(cx - w / 2) * width!r} {(cy - h / 2) * height!r})"
    scale = f"scale({w * width / PATH_UNITS!r} {h * height / PATH_UNITS!r})"
    beneath = "" if photo is None else f'<image href="{html.escape(photo)}" width="{width}" height="{height}"/>\n'
    return (
        f'<svg xmlns="{_SVG}" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n{beneath}'
        f'<path transform="{shift} {scale}" fill="{FILL}" fill-opacity="{FILL_OPACITY}" fill-rule="{path.rule}" '
        f'd="{path.text}"/>\n</svg>\n'
    )


def path_from_svg(text: str) -> PlacedPath:
    """Reads a document with one path, placed by moves and scalings: `svg_of_path`'s and those of `moonseg segment`.

    The view box is taken as the image. Fill and stroke are not looked at: the path's inside is what counts.

    Raises:
      UserError: not such a document; the message names the element or attribute.
    """
    if _NO_DOCTYPE.search(text):
        raise UserError("the SVG declares a document type or entities; remove the declaration")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"not an SVG document ({error})") from error
    if _name(root) != "svg":
        raise UserError(f"not an SVG document: its root is <{_name(root)}>")
    x, y, width, height = _numbers(root.get("viewBox", ""), "viewBox", (4,))
    if width <= 0 or height <= 0:
        raise UserError(f"viewBox {root.get('viewBox')!r}: its width and height must be more than 0")
    # A stack, not recursion: how deep an untrusted document nests is not ours to say.
    found: list[tuple[ElementTree.Element, Placement, str]] = []
    stack: list[tuple[ElementTree.Element, Placement, str]] = [(root, (1.0, 1.0, 0.0, 0.0), "nonzero")]
    while stack:
        element, outer, rule = stack.pop()
        name = _name(element)
        if name in (*_DRAWS_NOTHING, ""):
            continue
        if name not in ("svg", "g", "path") or (name == "svg" and element is not root):
            raise UserError(f"<{name}> is not read; keep one <path>, plain or in groups")
        _refuse_changes(element, name)
        placed = element, _then(outer, _placement(element.get("transform", ""))), element.get("fill-rule", rule)
        if name == "path":
            found.append(placed)
        else:
            stack += [(child, *placed[1:]) for child in element]
    if len(found) != 1:
        raise UserError(f"the SVG has {len(found)} paths; join them into one <path>")
    ((element, (sx, sy, tx, ty), rule),) = found
    commands, numbers = commands_of_text(element.get("d", ""))
    w, h = PATH_UNITS * sx / width, PATH_UNITS * sy / height
    box = ((tx - x) / width + w / 2, (ty - y) / height + h / 2, w, h)
    return PlacedPath(box=box, commands=commands, numbers=numbers, rule=_rule(rule))


def _name(element: ElementTree.Element) -> str:
    """Local name of an SVG element; nothing for other namespaces, which browsers do not draw."""
    namespace, _, name = element.tag[1:].partition("}") if element.tag.startswith("{") else (_SVG, "", element.tag)
    return name if namespace == _SVG else ""


def _refuse_changes(element: ElementTree.Element, name: str) -> None:
    for attribute in _CHANGES_THE_DRAWING:
        if attribute in element.attrib:
            raise UserError(f"<{name}>: the attribute {attribute} is not read; remove it")


def _rule(text: str) -> Literal["nonzero", "evenodd"]:
    match text:
        case "nonzero" | "evenodd":
            return text
        case _:
            raise UserError(f"fill-rule {text!r} is neither nonzero nor evenodd")


def _placement(text: str) -> Placement:
    """A transform attribute as scale and shift."""
    placement, position = (1.0, 1.0, 0.0, 0.0), 0
    while text[position:].strip():
        word = _TRANSFORM.match(text, position)
        if word is None:
            raise UserError(f"transform {text!r:.80}: cannot be read")
        match word[1]:
            case "translate":
                tx, *ty = _numbers(word[2], "transform", (1, 2))
                step = (1.0, 1.0, tx, ty[0] if ty else 0.0)
            case "scale":
                sx, *sy = _numbers(word[2], "transform", (1, 2))
                step = (sx, sy[0] if sy else sx, 0.0, 0.0)
            case "matrix":
                a, b, c, d, e, f = _numbers(word[2], "transform", (6,))
                if b or c:
                    raise UserError("transform: the matrix turns or slants the path; a box cannot")
                step = (a, d, e, f)
            case _:
                raise UserError(f"transform: {word[1]} is not read; use translate, scale or matrix")
        placement, position = _then(placement, step), word.end()
    return placement


def _then(outer: Placement, inner: Placement) -> Placement:
    """First the inner placement, then the outer one."""
    sx, sy, tx, ty = outer
    return sx * inner[0], sy * inner[1], sx * inner[2] + tx, sy * inner[3] + ty


def _numbers(text: str, attribute: str, counts: Sequence[int]) -> list[float]:
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not all(map(math.isfinite, numbers)):
        raise UserError(f"{attribute} {text!r:.80}: give {' or '.join(map(str, counts))} numbers")
    return numbers
