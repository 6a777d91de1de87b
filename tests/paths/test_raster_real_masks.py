"""Traced outlines of real objects, drawn by us and by other renderers."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import resvg_py
from PIL import Image
from pycocotools import mask as coco_mask
from raster_samples import edges

from moonseg_jax.paths.raster import coverage
from moonseg_jax.paths.simplify import simplify
from moonseg_jax.paths.trace import trace

SIDE, SLOTS, MASKS = 378, 160, 48
draw = jax.jit(coverage, static_argnames=("size", "at_once"))


def real_masks() -> list[np.ndarray]:
    """Masks of the development photos, some from every photo."""
    if "MOONSEG_REAL_DATA" not in os.environ:
        pytest.skip("MOONSEG_REAL_DATA does not name a folder with real photos")
    file = pathlib.Path(os.environ["MOONSEG_REAL_DATA"]) / "coco/instances.json"
    official = json.loads(file.read_text())
    size = {photo["id"]: (photo["height"], photo["width"]) for photo in official["images"]}
    annotations = [one for one in official["annotations"] if not one["iscrowd"] and one["area"] > 300]
    rng = np.random.default_rng(0)
    rng.shuffle(annotations)
    return [
        coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(one["segmentation"], *size[one["image_id"]]))) > 0
        for one in annotations[: 2 * MASKS]
    ]


def traced(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines and holes simplified at half a pixel, in units of the mask's box grown by a tenth."""
    polygons = [simplify(polygon, 0.5) for part in trace(mask) for polygon in part.polygons]
    polygons = [polygon for polygon in polygons if len(polygon)]
    points = np.concatenate(polygons)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    return [0.05 + 0.9 * (polygon - low) / extent for polygon in polygons]


def by_resvg(polygons: list[np.ndarray]) -> np.ndarray:
    """As the published engine does: at twice the size, averaged; resvg alone has but four samples a column."""
    path = "".join("M" + "L".join(f"{x:.7f} {y:.7f}" for x, y in polygon) + "Z" for polygon in polygons)
    size = f'viewBox="0 0 1 1" width="{2 * SIDE}" height="{2 * SIDE}"'
    document = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><path d="{path}" fill="white"/></svg>'
    pixels = np.asarray(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document)))))
    return pixels[..., 3].reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)) > 127.5


def by_skia(polygons: list[np.ndarray]) -> np.ndarray:
    skia = pytest.importorskip("skia")
    builder = skia.PathBuilder() if hasattr(skia, "PathBuilder") else skia.Path()
    for polygon in polygons:
        (x, y), *others = (polygon * SIDE).tolist()
        builder.moveTo(x, y)
        for point in others:
            builder.lineTo(*point)
        builder.close()
    surface = skia.Surface(SIDE, SIDE)
    path = builder.detach() if hasattr(builder, "detach") else builder
    surface.getCanvas().drawPath(path, skia.Paint(AntiAlias=True, Color=skia.ColorWHITE))
    return np.asarray(surface.makeImageSnapshot().toarray())[..., 3] > 127.5


@pytest.mark.parametrize("renderer", [by_resvg, by_skia])
def test_traced_masks_agree_with_other_renderers_at_one_half(renderer):
    if renderer is by_skia and importlib.util.find_spec("skia") is None:
        pytest.skip("skia-python is not installed")
    paths = [path for path in map(traced, real_masks()) if sum(map(len, path)) <= SLOTS][:MASKS]
    assert len(paths) == MASKS
    ours = np.asarray(draw(edges(*paths, slots=SLOTS), SIDE, at_once=4)) > 0.5
    both = either = 0
    worst = 1.0
    for mask, path in zip(ours, paths):
        theirs = renderer(path)
        shared, joined = int((mask & theirs).sum()), int((mask | theirs).sum())
        both, either, worst = both + shared, either + joined, min(worst, shared / joined)
    assert both / either >= 0.999, (both / either, worst)
    assert worst >= 0.997
