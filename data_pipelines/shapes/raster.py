"""Polygons onto a label map at four times the resolution of the image: the exact masks come from here."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from data_pipelines.shapes.kinds import Contour

SUPERSAMPLING = 4
"""Label-map cells along one side of a pixel."""

_FRACTION_BITS = 6
_FULL = SUPERSAMPLING * SUPERSAMPLING


def _inset(contour: Contour) -> Contour:
    """Moves every edge inwards by half the thickness of the line that `cv2.fillPoly` adds along it.

    `fillPoly` draws its edges too: a line one cell thick along the minor axis, hence half a cell times the
    larger component of the edge's normal.
    """
    corners = np.ascontiguousarray(contour).view(np.complex128)[:, 0]
    edges = np.concatenate((corners[1:], corners[:1])) - corners
    normals = edges * (1j / np.maximum(np.abs(edges), 1e-9))
    distances = 0.5 * np.maximum(np.abs(normals.real), np.abs(normals.imag))
    before = np.concatenate((normals[-1:], normals[:-1]))
    distances_before = np.concatenate((distances[-1:], distances[:-1]))
    cross = before.real * normals.imag - before.imag * normals.real
    bend = np.abs(cross) >= 0.05
    # The corner moves to where the two shifted edges meet; almost straight ones move along the normal.
    mitre = 1j * (distances * before - distances_before * normals) / np.where(bend, cross, 1.0)
    mitre *= np.minimum(1, 2 / np.maximum(np.abs(mitre), 1e-9))
    moved = corners + np.where(bend, mitre, normals * distances)
    return moved.view(np.float64).reshape(-1, 2)


def paint(labels: UInt8[np.ndarray, "H4 W4"], contours: list[Contour], value: int) -> None:
    """Writes `value` into the cells whose centres lie inside the polygons (even-odd rule), in place.

    Args:
      labels: label map, `SUPERSAMPLING` cells per pixel.
      contours: closed polygons in pixels of the image, pixel (0, 0) covering [0, 1) x [0, 1); outer
        boundaries with positive signed area, holes negative.
      value: label to write, 1..255.
    """
    # In fillPoly integer coordinates are the centres of cells.
    cells = [_inset(contour * SUPERSAMPLING - 0.5) for contour in contours]
    fixed = [np.rint(cell * (1 << _FRACTION_BITS)).astype(np.int32) for cell in cells]
    cv2.fillPoly(labels, fixed, value, lineType=cv2.LINE_8, shift=_FRACTION_BITS)


def coverage(labels: UInt8[np.ndarray, "H4 W4"], value: int) -> UInt8[np.ndarray, "H W"]:
    """Cells of each pixel that carry a label, 0..16."""
    carried = (labels == value).view(np.uint8) * _FULL
    size = (labels.shape[1] // SUPERSAMPLING, labels.shape[0] // SUPERSAMPLING)
    return cv2.resize(carried, size, interpolation=cv2.INTER_AREA)
