"""Synthetic coarse masks: a ground truth corrupted, as a rival to rollouts in the refiner's training."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Bool

Corruption = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
"""(mask uint8[H, W], object scale in pixels, generator) → mask uint8[H, W]."""


def corrupt(mask: Bool[np.ndarray, "H W"], rng: np.random.Generator) -> Bool[np.ndarray, "H W"]:
    """A coarse mask of the same object: one to three different corruptions in turn.

    Shifts and stretches by up to 15 % of the object's scale (the square root of its area), erodes or dilates by up
    to 8 %, replaces the outline by a coarse polygon, drops a part or bites into the border. A corruption that would
    leave nothing is left out, so the result is empty only if the mask is.
    """
    corrupted = np.ascontiguousarray(mask, np.uint8)
    if corrupted.any():
        scale = float(np.sqrt(np.count_nonzero(corrupted)))
        for index in rng.permutation(len(CORRUPTIONS))[: rng.integers(1, 4)]:
            attempt = CORRUPTIONS[index](corrupted, scale, rng)
            corrupted = attempt if attempt.any() else corrupted
    return corrupted.astype(bool)


def move(mask: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Shifts, and stretches each axis about the centre of the object's box."""
    (dx, dy), (sx, sy) = rng.uniform(-0.15, 0.15, 2) * scale, 1 + rng.uniform(-0.15, 0.15, 2)
    x, y, width, height = cv2.boundingRect(mask)
    cx, cy = x + (width - 1) / 2, y + (height - 1) / 2
    matrix = np.array([[sx, 0, cx - sx * cx + dx], [0, sy, cy - sy * cy + dy]])
    return cv2.warpAffine(mask, matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST)


def erode(mask: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Takes a border away."""
    return cv2.erode(mask, _disc(scale, rng))


def dilate(mask: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Adds a border."""
    return cv2.dilate(mask, _disc(scale, rng))


def polygonise(mask: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Replaces outlines, those of holes included, by polygons of few vertices."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    tolerance = rng.uniform(0.03, 0.12) * scale
    polygons = [cv2.approxPolyDP(outline, tolerance, closed=True) for outline in outlines]
    return cv2.fillPoly(np.zeros_like(mask), polygons, (1,))


def drop(mask: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Removes one part of several; from a single part, bites a disc out of the border."""
    parts, labels = cv2.connectedComponents(mask, connectivity=8)
    if parts > 2:
        return np.where(labels == rng.integers(1, parts), 0, mask).astype(np.uint8)
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    border = np.argwhere(mask > inside)
    y, x = border[rng.integers(len(border))]
    radius = max(1, round(rng.uniform(0.1, 0.25) * scale))
    return cv2.circle(mask.copy(), (int(x), int(y)), radius, (0,), cv2.FILLED)


CORRUPTIONS: tuple[Corruption, ...] = (move, erode, dilate, polygonise, drop)


def _disc(scale: float, rng: np.random.Generator) -> np.ndarray:
    radius = max(1, round(rng.uniform(0.02, 0.08) * scale))
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
