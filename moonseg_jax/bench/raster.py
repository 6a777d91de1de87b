"""Masks per second of our raster beside other ways to draw the same paths, all in one run."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Array, Bool, Float
from PIL import Image
from pycocotools import mask as coco_mask

from moonseg_jax.bench.timing import Timed, fastest
from moonseg_jax.config import PATH_UNITS
from moonseg_jax.paths.raster import coverage
from moonseg_jax.paths.svg import path_text, svg_document
from moonseg_jax.rewards import mask_iou
from moonseg_jax.types import EdgeBatch

AT_ONCE = 4
"""Paths drawn together on a CPU: what fits its caches. Accelerators draw all at once."""
_ENGINE_SCALE = 2
_MOST_ENGINE_MASKS = 16
_FARTHEST_WAVE = 8


def bench_raster(size: int, edges: int, batch: int, repeats: int = 3) -> dict[str, Any]:
    """Draws smooth outlines in every way there is here and compares.

    Ours is compiled and warm; moving the edges to the device and the masks back is timed apart. `ours_and_reward`
    is what a rollout does: the IoU with a ground truth in the same program, no mask leaves. The engine's way is
    resvg at twice the size, a PNG, and the average of its alpha; it draws a few of the masks.

    Args:
      size: pixels along each side of a mask.
      edges: of every path, 3 or more.
      batch: masks.
      repeats: the fastest of so many rounds counts.

    Returns:
      Machine and load, seconds of ours to compile and to transfer, memory over that of the masks, and for every
      way masks per second (of the clock, and of CPU time where others share the machine), how many times as fast
      ours is, and the mean IoU of its masks with ours.
    """
    outlines = smooth_outlines(batch, edges)
    points: Any = np.stack([outlines, np.roll(outlines, -1, axis=1)], axis=2).astype(np.float32)
    everywhere: Any = np.ones((batch, edges), bool)
    one_subpath: Any = np.zeros((batch, edges), np.int32)
    host = EdgeBatch(points=points, valid=everywhere, subpath=one_subpath)
    at_once = AT_ONCE if jax.default_backend() == "cpu" else None
    start = time.perf_counter()
    compiled = jax.jit(lambda paths: coverage(paths, size, at_once=at_once)).lower(host).compile()
    compile_seconds = time.perf_counter() - start
    to_device = fastest(lambda: jax.block_until_ready(jax.device_put(host)), repeats)
    placed = to_device.result
    ours = fastest(lambda: jax.block_until_ready(compiled(placed)), repeats)
    to_host = fastest(lambda: np.array(ours.result), repeats)
    masks = to_host.result > 0.5
    truth = jax.device_put(masks)
    rewarded = (
        jax.jit(lambda paths, truth: _reward(paths, truth, size, at_once or batch)).lower(placed, truth).compile()
    )
    reward = fastest(lambda: jax.block_until_ready(rewarded(placed, truth)), repeats)
    memory: Any = compiled.memory_analysis()
    figures: dict[str, Any] = {
        "size": size, "edges": edges, "batch": batch,
        "device": jax.devices()[0].device_kind, "cpu_cores": os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 1),
        "compile_seconds": round(compile_seconds, 2),
        "edges_to_device_seconds": round(to_device.wall, 5),
        "masks_to_host_seconds": round(to_host.wall, 5),
        "temporaries_over_masks": round(memory.temp_size_in_bytes / memory.output_size_in_bytes, 3),
        "ours": _rates(batch, ours),
        "ours_and_reward": _rates(batch, reward),
    }  # fmt: skip
    for name, draw in (("cv2_fillPoly", _fill_poly), ("pycocotools", _pycocotools), ("engine_resvg", _engine(size))):
        few = outlines[:_MOST_ENGINE_MASKS] if name == "engine_resvg" else outlines
        figures[name] = (
            _beside(draw, few, masks, size, repeats, figures["ours"])
            if draw is not None
            else {"skipped": "resvg-py is not installed; it comes with the extra [test]"}
        )
    return figures


def smooth_outlines(batch: int, edges: int, seed: int = 0) -> Float[np.ndarray, "batch edges 2"]:
    """Closed outlines with a few bays each, on the lattice of path numbers, in units of the image."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(edges) / edges
    wave = np.arange(2, _FARTHEST_WAVE + 1)[:, None]
    height = 0.25 * rng.normal(size=(batch, len(wave), 1)) / wave
    phase = rng.uniform(0, 2 * np.pi, (batch, len(wave), 1))
    radius = np.abs(1 + (height * np.cos(wave * angle + phase)).sum(axis=1))
    radius *= 0.48 / radius.max(axis=1, keepdims=True)
    points = 0.5 + radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.round(points * PATH_UNITS) / PATH_UNITS


def _reward(paths: EdgeBatch, truth: Bool[Array, "N S S"], size: int, at_once: int) -> Float[Array, " N"]:
    def score(one: tuple[EdgeBatch, Array]) -> Array:
        edges, mask = one
        return mask_iou(coverage(jax.tree.map(lambda leaf: leaf[None], edges), size), mask[None])[0]

    return jax.lax.map(score, (paths, truth), batch_size=at_once)


def _fill_poly(outline: np.ndarray, size: int) -> np.ndarray:
    points = np.rint(outline * size - 0.5).astype(np.int32)
    return cv2.fillPoly(np.zeros((size, size), np.uint8), [points], 1)


def _pycocotools(outline: np.ndarray, size: int) -> np.ndarray:
    return coco_mask.decode(coco_mask.frPyObjects([(outline * size).ravel().tolist()], size, size))[..., 0]


def _engine(size: int) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """The published engine's way, or None where its renderer is not installed."""
    try:
        import resvg_py
    except ImportError:
        return None
    large = _ENGINE_SCALE * size

    def draw(outline: np.ndarray, size: int) -> np.ndarray:
        document = svg_document(path_text([outline]), (0.5, 0.5, 1, 1), width=large, height=large)
        pixels = np.asarray(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document)))))
        alpha = pixels[..., 3].reshape(size, _ENGINE_SCALE, size, _ENGINE_SCALE)
        return alpha.mean(axis=(1, 3), dtype=np.float32) > 127.5

    return draw


def _beside(
    draw: Callable[[np.ndarray, int], np.ndarray],
    outlines: np.ndarray,
    ours: np.ndarray,
    size: int,
    repeats: int,
    our_rates: dict[str, float],
) -> dict[str, float]:
    timed = fastest(lambda: [draw(outline, size) for outline in outlines], repeats)
    overlap = [(mask & (other > 0)).sum() / (mask | (other > 0)).sum() for mask, other in zip(ours, timed.result)]
    rates = _rates(len(outlines), timed)
    return {
        **rates,
        "ours_times_as_fast": round(our_rates["masks_per_second"] / rates["masks_per_second"], 3),
        "ours_times_as_fast_by_cpu_time": round(our_rates["masks_per_cpu_second"] / rates["masks_per_cpu_second"], 3),
        "mean_iou_with_ours": round(float(np.mean(overlap)), 4),
    }


def _rates(count: int, timed: Timed) -> dict[str, float]:
    return {
        "masks_per_second": round(count / timed.wall, 1),
        "masks_per_cpu_second": round(count / max(timed.cpu, 1e-9), 1),
    }
