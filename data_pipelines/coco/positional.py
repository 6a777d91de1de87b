"""Phrases of place for categories that a photo holds several times: "left dog", "second cup from the left"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from data_pipelines.coco.annotations import PhotoEntry

MOST = 5
"""Most instances that are told apart by their order."""
GAP = 0.08
"""Least distance between the centres of neighbours, as a share of the photo's width or height: closer ones might be
ordered the other way by somebody else."""
ORDINALS = ("", "second", "third", "fourth")
ACROSS, DOWN = ("left", "right"), ("top", "bottom")


def positional_phrases(name: str, masks: Sequence[dict], photo: PhotoEntry) -> list[str] | None:
    """A phrase for every instance of a category, in the order of the masks.

    Instances are ordered from left to right where their box centres are far enough apart, else from top to bottom.

    Args:
      name: of the category.
      masks: of all its instances in the photo, COCO run-length encodings with pixels.
      photo: for its size.

    Returns:
      None where neither order is clear, or there are fewer than 2 or more than `MOST`.
    """
    if not 2 <= len(masks) <= MOST:
        return None
    boxes = coco_mask.toBbox(list(masks))
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    for axis, extent, ends in ((0, photo.width, ACROSS), (1, photo.height, DOWN)):
        order = np.argsort(centres[:, axis])
        if (np.diff(centres[order, axis]) >= GAP * extent).all():
            said = _said(name, len(masks), *ends)
            return [said[int(place)] for place in np.argsort(order)]
    return None


def _said(name: str, count: int, first: str, last: str) -> list[str]:
    """The phrases of a row of instances, from its first end to its last."""
    if count == 2:
        return [f"{first} {name}", f"{last} {name}"]
    if count == 3:
        return [f"{first} {name}", f"middle {name}", f"{last} {name}"]
    inner = [f"{ORDINALS[place]} {name} from the {first}" for place in range(1, count - 1)]
    return [f"{first}most {name}", *inner, f"{last}most {name}"]
