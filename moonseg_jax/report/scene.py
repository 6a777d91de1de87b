"""One scene of the gallery as HTML: the photo with the path on it, and the masks laid over the same photo."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from moonseg_jax.gallery.scenes import GalleryItem
from moonseg_jax.metrics import LARGE_FROM, MEDIUM_FROM
from moonseg_jax.status import is_as_asked

MOST_PIXELS = 384
"""Longer sides are reduced to this in the page; small images keep their pixels and are shown enlarged."""
EXACT_PIXELS, JPEG_QUALITY = 128, 85
"""Photos whose longer side is no longer than this are embedded as they are, to the pixel."""

OUTSIDE, HIT, EXTRA, MISSED = 0, 1, 2, 3
"""Indices of the overlay: neither mask nor truth; both; mask alone; truth alone."""
OVERLAY_COLOURS = ((16, 18, 26, 140), (45, 212, 191, 190), (244, 63, 94, 200), (250, 204, 21, 200))
"""RGBA of the indices; the page's legend uses the same."""


def scene_card(item: GalleryItem, place: int = 0, kept_as: str = "") -> str:
    """Draws one scene.

    The photo is embedded once, as a background that its panels share; masks are small transparent overlays.

    Args:
      item: the scene.
      place: its number in the stored gallery, from 0.
      kept_as: why it was kept: "worst".

    Returns:
      Escaped HTML.
    """
    empty = "" if item.coarse.any() else "empty mask"
    panels = [
        panel("photo", ""),
        panel("path", path_drawing(item.polygons), "" if item.polygons else "empty path"),
        panel("coarse", overlay(item.coarse, item.truth, "coarse mask"), empty),
        refined_panel(item),
        truth_panel(item.truth),
    ]
    status = "" if is_as_asked(item.status) else f' <span class="status">{escape(item.status)}</span>'
    gain = None if item.iou_refined is None else item.iou_refined - item.iou_coarse
    ranks = {"iou": item.iou, "gain": gain, "place": place}
    kept = f'<span class="kept">{escape(kept_as)}</span>' if kept_as else ""
    return card(item.phrase, f"{_ious(item)}{kept}{status}", panels, item.image, item.truth, ranks)


def card(
    phrase: str,
    figures: str,
    panels: Sequence[str],
    image: UInt8[np.ndarray, "H W 3"],
    truth: Bool[np.ndarray, "H W"],
    ranks: Mapping[str, float | None] | None = None,
    css: str = "scene",
) -> str:
    """A card: phrase, a line of figures, panels over one photo.

    Args:
      phrase: plain text, its heading.
      figures: escaped HTML.
      panels: escaped HTML of each.
      image: the photo behind them.
      truth: for shape and size.
      ranks: numbers by which the page's script may sort it; None sorts last.
      css: its classes.
    """
    height, width = truth.shape
    style = f"--photo:url({_photo(image)});--shape:{width}/{height}"
    data = "".join(f' data-{name}="{"" if v is None else format(v, ".6g")}"' for name, v in (ranks or {}).items())
    return (
        f'<article class="{css}" style="{style}"{data} data-size="{object_size(truth)}"><h3>{escape(phrase)}</h3>'
        f'<p class="ious">{figures} <button type="button" class="zoom" hidden>Enlarge</button></p>'
        f'<div class="panels">{"".join(panels)}</div></article>'
    )


def object_size(truth: Bool[np.ndarray, "H W"]) -> str:
    """`small`, `medium` or `large`, by the share of the image as in `metrics.by_object_size`; `none`: no target."""
    share = float(np.mean(truth))
    return "none" if not share else "large" if share >= LARGE_FROM else "medium" if share >= MEDIUM_FROM else "small"


def refined_panel(item: GalleryItem, caption: str = "refined") -> str:
    """The refined mask of a scene, or that there is none."""
    if item.refined is None:
        return panel(caption, '<span class="absent">not refined</span>', absent=True)
    empty = "" if item.refined.any() else "empty mask"
    return panel(caption, overlay(item.refined, item.truth, "refined mask"), empty)


def truth_panel(truth: Bool[np.ndarray, "H W"]) -> str:
    """The ground truth of a scene."""
    return panel("ground truth", overlay(truth, truth, "true mask"), "" if truth.any() else "no target")


def overlay_indices(mask: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Which pixels both have, the mask alone has, the truth alone has: one overlay index per pixel."""
    return np.where(mask, np.where(truth, HIT, EXTRA), np.where(truth, MISSED, OUTSIDE)).astype(np.uint8)


def panel(caption: str, inner: str, note: str = "", *, absent: bool = False) -> str:
    """A picture with a caption (escaped already) and possibly a note in its corner."""
    tag = f'<span class="tag">{note}</span>' if note else ""
    photo = f'<div class="photo{" gone" if absent else ""}">{inner}{tag}</div>'
    return f"<figure>{photo}<figcaption>{caption}</figcaption></figure>"


def _ious(item: GalleryItem) -> str:
    if item.iou_refined is None:
        return f"IoU <b>{item.iou_coarse:.2f}</b>"
    return f"IoU {item.iou_coarse:.2f} → <b>{item.iou_refined:.2f}</b> {change(item.iou_refined - item.iou_coarse)}"


def change(difference: float) -> str:
    """A difference with its sign, coloured where two places show it."""
    direction = "up" if difference >= 0.005 else "down" if difference <= -0.005 else ""
    return f'<span class="change {direction}">{difference:+.2f}</span>'


def path_drawing(polygons: Sequence[Float[np.ndarray, "V 2"]]) -> str:
    """A path to lie over a photo: filled outline, and vertices as zero-length strokes, round at any scale.

    Args:
      polygons: subpaths, (x, y) vertices in units of the image.
    """
    if not polygons:
        return ""
    rings = [[f"{100 * x:.2f} {100 * y:.2f}" for x, y in polygon] for polygon in polygons]
    outline = "".join(f"M{' L'.join(ring)}Z" for ring in rings)
    vertices = "".join(f"M{point}h0" for ring in rings for point in ring)
    count = sum(len(ring) for ring in rings)
    return (
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{count} vertices">'
        f'<path class="casing" d="{outline}"/><path class="outline" d="{outline}"/>'
        f'<path class="vertices" d="{vertices}"/></svg>'
    )


def overlay(mask: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"], name: str) -> str:
    """Mask beside truth as a transparent picture, see `overlay_indices`; the name is for those who cannot see it."""
    picture = Image.fromarray(overlay_indices(mask, truth))
    picture = picture.resize(_page_size(picture.size), Image.Resampling.NEAREST).convert("P")
    picture.putpalette([channel for colour in OVERLAY_COLOURS for channel in colour[:3]])
    alpha = bytes(colour[3] for colour in OVERLAY_COLOURS)
    return f'<img alt="{name} over the photo" src="{_png(picture, transparency=alpha)}">'


def _photo(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """Small images to the pixel; larger ones as JPEG where that is shorter, or photographs would fill the page."""
    picture = Image.fromarray(image)
    picture = picture.resize(_page_size(picture.size), Image.Resampling.BOX)
    exact = _png(picture)
    if max(picture.size) <= EXACT_PIXELS:
        return exact
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return min(exact, _data("image/jpeg", file), key=len)


def _page_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, MOST_PIXELS / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _png(picture: Image.Image, transparency: bytes | None = None) -> str:
    file = io.BytesIO()
    if transparency is None:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "PNG", optimize=True, transparency=transparency)
    return _data("image/png", file)


def _data(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
