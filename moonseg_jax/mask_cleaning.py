"""Cleaning of refined masks: specks and pinholes go, the mask is closed (specification §11.7)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool

SMALL_SHARE = 0.0015
"""Components smaller than this share of the image are specks or pinholes."""


def clean_mask(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Fills small background components, removes small foreground ones, closes with a 3 x 3 square.

    Components are 8-connected. If every foreground component is small, the largest stays.
    """
    smallest = max(1.0, SMALL_SHARE * mask.size)
    mask = mask | _small_components(~mask, smallest)
    specks = _small_components(mask, smallest)
    if specks.any():
        rest = mask & ~specks
        mask = rest if rest.any() else _largest_component(mask)
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return closed.astype(bool)


def _small_components(mask: Bool[np.ndarray, "H W"], smallest: float) -> Bool[np.ndarray, "H W"]:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    small = statistics[:, cv2.CC_STAT_AREA] < smallest
    small[0] = False
    return small[labels]


def _largest_component(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels == 1 + np.argmax(statistics[1:, cv2.CC_STAT_AREA])
