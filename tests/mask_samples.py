"""Masks to trace: smooth shapes, noise and corner cases."""

from __future__ import annotations

import cv2
import numpy as np


def ellipse(size: int, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] + 0.5
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


def blob(rng: np.random.Generator, size: int = 96) -> np.ndarray:
    """Several smooth parts with holes: a level set of blurred noise."""
    noise = cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), float(rng.uniform(1, 12)))
    return noise > np.quantile(noise, rng.uniform(0.4, 0.95))


def smooth_shapes() -> dict[str, np.ndarray]:
    """96 x 96 masks like the objects of the shapes data."""
    disc = ellipse(96, 40.3, 50.2, 21.7, 21.7)
    turned = cv2.fillPoly(np.zeros((96, 96), np.uint8), [np.array([(20, 50), (60, 20), (75, 40), (35, 70)])], 1) > 0
    return {
        "disc": disc,
        "ellipse": ellipse(96, 60, 30, 30, 14),
        "ring": disc & ~ellipse(96, 40.3, 50.2, 12, 12),
        "crescent": disc & ~ellipse(96, 52, 50, 17, 19),
        "bar": turned,
        "two dots": ellipse(96, 20, 20, 11, 11) | ellipse(96, 60, 44, 11, 11),
    }


def corner_cases() -> dict[str, np.ndarray]:
    """Masks at the limits of tracing."""
    one = np.zeros((20, 30), bool)
    one[7, 11] = True
    diagonal = np.eye(12, dtype=bool)
    checkers = np.indices((16, 16)).sum(axis=0) % 2 == 0
    frame = np.ones((20, 30), bool)
    frame[1:-1, 1:-1] = False
    nested = np.zeros((21, 21), bool)
    for ring in range(0, 10, 2):
        nested[ring : 21 - ring, ring : 21 - ring] = True
        nested[ring + 1 : 20 - ring, ring + 1 : 20 - ring] = False
    return {
        "one pixel": one,
        "row": np.eye(1, 30, 4, dtype=bool) | np.eye(1, 30, 5, dtype=bool),
        "everything": np.ones((20, 30), bool),
        "touches every border": frame,
        "diagonal": diagonal,
        "checkers": checkers,
        "nested": nested,
    }
