"""Traced, simplified, quantised, drawn back: how close paths come to the masks of an annotation file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from moonseg_jax.errors import UserError
from moonseg_jax.metrics import MaskMetrics
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.mask_path import path_of_mask

PERCENTILES = (50, 90, 99)


def measure_tracing(masks: Iterable[Bool[np.ndarray, "height width"]], tolerance: float = 0.5) -> dict[str, Any]:
    """Draws every mask back from its path, by pixel centres at its own resolution; empty masks are left out.

    Args:
      masks: non-zero is foreground.
      tolerance: in pixels.

    Returns:
      `MaskMetrics.summary` without precisions, the lowest IoU, vertices at the percentiles, and milliseconds a mask.

    Raises:
      UserError: there is no mask with a pixel.
    """
    metrics, vertices, worst, seconds = MaskMetrics(), [], 1.0, 0.0
    for mask in masks:
        if not mask.any():
            continue
        start = time.perf_counter()
        found = path_of_mask(mask, tolerance=tolerance, max_subpaths=mask.size)
        seconds += time.perf_counter() - start
        worst = min(worst, metrics.add(fill(found.path.polygons(*mask.shape), *mask.shape), mask))
        vertices.append(found.vertices)
    if not vertices:
        raise UserError("tracing is measured on masks with at least one pixel; there is none")
    summary = metrics.summary()
    figures = {name: round(summary[name], 5) for name in ("ciou", "miou", "biou_2pct", "biou_2px")}
    counts = {f"vertices_p{share}": float(np.percentile(vertices, share)) for share in PERCENTILES}
    speed = {"milliseconds_per_mask": round(1000 * seconds / len(vertices), 2)}
    return {"masks": len(vertices), **figures, "worst_iou": round(worst, 5), **counts, **speed}


def annotated_masks(file: Path, *, crowds: bool = False) -> Iterator[Bool[np.ndarray, "height width"]]:
    """The masks of a COCO or LVIS annotation file at the size of their images, decoded as pycocotools does.

    Args:
      file: an instances file.
      crowds: also those of groups (`iscrowd`).

    Raises:
      UserError: a file or a segmentation that is not what COCO says.
    """
    from data_pipelines.coco.annotations import read_annotations

    annotations = read_annotations(file)
    sizes = {photo.id: (photo.height, photo.width) for photo in annotations.photos}
    for instance in annotations.instances:
        if crowds or not instance.is_crowd:
            yield _decoded(instance.segmentation, *sizes[instance.image_id], where=f"{file}: annotation {instance.id}")


def bench_tracing(file: Path, *, tolerance: float = 0.5, crowds: bool = False) -> dict[str, Any]:
    """Measures tracing on an annotation file; see `measure_tracing` and `annotated_masks`."""
    if not 0 <= tolerance < float("inf"):
        raise UserError(f"--tolerance {tolerance}: give a number of pixels, 0 or more")
    return {"tolerance_px": tolerance, **measure_tracing(annotated_masks(file, crowds=crowds), tolerance)}


def _decoded(segmentation: Any, height: int, width: int, *, where: str) -> Bool[np.ndarray, "height width"]:
    try:
        encoded = segmentation
        if isinstance(segmentation, list):
            encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            encoded = coco_mask.frPyObjects(segmentation, height, width)
        return coco_mask.decode(encoded) > 0
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{where}, field segmentation: neither polygons nor a run-length encoding ({error!r})"
        ) from error
