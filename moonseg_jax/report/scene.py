"""One scene of the gallery as HTML: the photo with the path on it, and the masks laid over the same photo."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from moonseg_jax.report.content import GalleryItem
from moonseg_jax.status import is_as_asked

MOST_PIXELS = 384
"""Longer sides are reduced to this in the page; small images keep their pixels and are shown enlarged."""

OUTSIDE, HIT, EXTRA, MISSED = 0, 1, 2, 3
"""Indices of the overlay: neither mask nor truth; both; mask alone; truth alone."""
OVERLAY_COLOURS = ((16, 18, 26, 140), (45, 212, 191, 190), (244, 63, 94, 200), (250, 204, 21, 200))
"""RGBA of the indices; the page's legend uses the same."""


def scene_card(item: GalleryItem) -> str:
    """Draws one scene.

    The photo is embedded once, as a background that its panels share; masks are small transparent overlays.

    Returns:
      Escaped HTML.
    """
    height, width = item.truth.shape
    empty = "" if item.coarse.any() else "empty mask"
    if item.refined is None:
        refined = panel("refined", '<span class="absent">not refined</span>', absent=True)
    else:
        refined = panel(
            "refined", overlay(item.refined, item.truth, "refined mask"), "" if item.refined.any() else "empty mask"
        )
    panels = [
        panel("path", path_drawing(item.polygons), "" if item.polygons else "empty path"),
        panel("coarse", overlay(item.coarse, item.truth, "coarse mask"), empty),
        refined,
        panel("ground truth", overlay(item.truth, item.truth, "true mask"), "" if item.truth.any() else "no target"),
    ]
    style = f"--photo:url({_photo(item.image)});--shape:{width}/{height}"
    status = "" if is_as_asked(item.status) else f' <span class="status">{escape(item.status)}</span>'
    return (
        f'<article class="scene" style="{style}"><h3>{escape(item.phrase)}</h3>'
        f'<p class="ious">{_ious(item)}{status}</p><div class="panels">{"".join(panels)}</div></article>'
    )


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
    change = item.iou_refined - item.iou_coarse
    direction = "up" if change >= 0.005 else "down" if change <= -0.005 else ""
    return (
        f"IoU {item.iou_coarse:.2f} → <b>{item.iou_refined:.2f}</b> "
        f'<span class="change {direction}">{change:+.2f}</span>'
    )


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
    picture = Image.fromarray(image)
    return _png(picture.resize(_page_size(picture.size), Image.Resampling.BOX))


def _page_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, MOST_PIXELS / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _png(picture: Image.Image, transparency: bytes | None = None) -> str:
    file = io.BytesIO()
    if transparency is None:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "PNG", optimize=True, transparency=transparency)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
