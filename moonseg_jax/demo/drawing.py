"""The picture on the page: the photo, the path as it grows, or a mask over it, with the visitor's clicks."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from moonseg_jax.demo.visit import Visit
from moonseg_jax.overlay import COLOURS, at_viewing_size, resized, with_mask
from moonseg_jax.paths.svg import parse_polygons
from moonseg_jax.segmentation import Box

View = Literal["photo", "path", "coarse mask", "refined mask", "ground truth"]
VIEWS: tuple[View, ...] = get_args(View)
PATH_COLOUR, COARSE_COLOUR, REFINED_COLOUR, TRUTH_COLOUR = COLOURS[0], COLOURS[2], COLOURS[1], COLOURS[3]
CLICK_COLOUR = COLOURS[7]
HALO = (255, 255, 255)
FRACTION_BITS = 4
"""Of the coordinates that OpenCV draws lines between."""

Picture = UInt8[np.ndarray, "h w 3"]
Polygons = tuple[Float[np.ndarray, "V 2"], ...]


def views_of(visit: Visit) -> list[View]:
    """What there is to see."""
    if visit.answer is None:
        return ["photo"]
    return list(VIEWS) if visit.known_truth is not None else list(VIEWS[:-1])


def picture(visit: Visit, view: View) -> Picture | None:
    """The picture of a visit.

    Args:
      visit: None is drawn without a photo.
      view: one of `views_of`; others show the photo.
    """
    if visit.photo is None:
        return None
    photo, answer = at_viewing_size(visit.photo), visit.answer
    match view:
        case "path" if answer is not None:
            photo = with_path(photo, answer.drawn_box, answer.polygons, is_closed=True)
        case "coarse mask" if answer is not None:
            photo = _with_mask(photo, answer.coarse_mask, COARSE_COLOUR)
        case "refined mask" if answer is not None:
            photo = _with_mask(photo, answer.mask, REFINED_COLOUR)
        case "ground truth" if visit.known_truth is not None:
            photo = _with_mask(photo, visit.known_truth, TRUTH_COLOUR)
    return with_clicks(photo, visit)


def picture_so_far(visit: Visit, drawn_box: Box, path: str) -> Picture | None:
    """The path while it is drawn.

    Args:
      visit: has a photo.
      drawn_box: cx, cy, w, h in units of the photo.
      path: the pieces so far, joined by blanks; relative to the box.
    """
    if visit.photo is None:
        return None
    polygons = polygons_so_far(drawn_box, path)
    return with_clicks(with_path(at_viewing_size(visit.photo), drawn_box, polygons, is_closed=False), visit)


def polygons_so_far(drawn_box: Box, path: str) -> Polygons:
    """Subpaths in units of the photo, the last one perhaps unfinished; arguments as in `picture_so_far`."""
    cx, cy, width, height = drawn_box
    text = path if path.endswith("Z") or not path else f"{path} Z"
    corner, extent = np.array([cx - width / 2, cy - height / 2]), np.array([width, height])
    return tuple(corner + polygon * extent for polygon in parse_polygons(text))


def with_path(photo: Picture, drawn_box: Box, polygons: Polygons, *, is_closed: bool) -> Picture:
    """Box, outline and vertices over a photo.

    Args:
      photo: at viewing size.
      drawn_box: cx, cy, w, h in units of the photo.
      polygons: in units of the photo.
      is_closed: whether the last subpath is closed; the others are.
    """
    drawn, stroke = photo.copy(), _stroke(photo)
    cx, cy, w, h = drawn_box
    corners = np.array([[cx - w / 2, cy - h / 2], [cx + w / 2, cy + h / 2]])
    first, second = _pixels(corners, photo)
    cv2.rectangle(drawn, first, second, HALO, 1, cv2.LINE_AA, FRACTION_BITS)
    for number, polygon in enumerate(polygons, 1):
        closed = is_closed or number < len(polygons)
        points = np.array(_pixels(polygon, photo), np.int32)
        for colour, width in ((HALO, stroke + 2), (PATH_COLOUR, stroke)):
            cv2.polylines(drawn, [points], closed, colour, width, cv2.LINE_AA, FRACTION_BITS)
        for point in points.tolist():
            cv2.circle(drawn, point, (stroke + 1) << FRACTION_BITS, HALO, -1, cv2.LINE_AA, FRACTION_BITS)
            cv2.circle(drawn, point, stroke << FRACTION_BITS, PATH_COLOUR, -1, cv2.LINE_AA, FRACTION_BITS)
    return drawn


def with_clicks(photo: Picture, visit: Visit) -> Picture:
    """The visitor's point or box over a photo at viewing size."""
    if not visit.clicks:
        return photo
    drawn, stroke = photo.copy(), _stroke(photo)
    points = _pixels(np.array(visit.clicks), photo)
    for colour, width in ((HALO, stroke + 2), (CLICK_COLOUR, stroke)):
        if len(points) == 2:
            cv2.rectangle(drawn, points[0], points[1], colour, width, cv2.LINE_AA, FRACTION_BITS)
        else:
            cv2.circle(drawn, points[0], (3 * stroke) << FRACTION_BITS, colour, width, cv2.LINE_AA, FRACTION_BITS)
    return drawn


def _with_mask(photo: Picture, mask: Bool[np.ndarray, "H W"], colour: tuple[int, int, int]) -> Picture:
    return with_mask(photo, resized(mask, photo), colour, _stroke(photo))


def _stroke(photo: Picture) -> int:
    return max(2, max(photo.shape[:2]) // 300)


def _pixels(points: Float[np.ndarray, "n 2"], photo: Picture) -> list[tuple[int, int]]:
    """Units of the photo → pixels with fraction bits; the centre of the first pixel is 0."""
    scaled = (points * np.array(photo.shape[1::-1]) - 0.5) * (1 << FRACTION_BITS)
    return [(round(x), round(y)) for x, y in scaled.tolist()]
