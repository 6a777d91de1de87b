"""The figure of the README: what the shipped checkpoint answers on a held-out scene, and what happens on the way.

python docs/figures/draw.py

writes `scene.png` (the image alone, to try commands on) and `segment.png` beside this file.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import patches, pyplot
from matplotlib.axes import Axes
from PIL import Image
from pycocotools import mask as coco_mask

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax.overlay import COLOURS, resized, with_mask
from moonseg_jax.predict import Segmenter
from moonseg_jax.segmentation import Segmentation

matplotlib.use("Agg")
SCENE, PHRASE = 30, "the bottommost ring"
"""Of the split `val`, seed 0, level 2: never used in training."""
ENLARGED = 6
"""Pixels of the figure for one of the scene."""
PAPER, INK, FAINT, RED = "#fbfaf7", "#22252b", "#737985", "#e63946"
"""The paper is opaque: the figure reads the same on light and dark pages."""
STEPS = (
    ("image + phrase", "crops and\ntokens"),
    ("vision encoder", "patches to\nfeatures"),
    ("decoder", "box, then path,\ntoken by token"),
    ("rasteriser", "path to mask,\non the device"),
    ("refiner × 5", "mask and image\nto mask"),
)
STAGES = (
    "1  sft: paths traced from true masks",
    "2  rl: paid by the IoU of its own mask",
    "3  refiner: learns from rollouts of 2",
)
"""What each stage of training learns from."""


def main() -> None:
    """Asks the shipped checkpoint, and draws its answer."""
    folder = Path(__file__).parent
    [example] = [one for one in generate_scene(0, SCENE, 2, "val").examples if one.phrase == PHRASE]
    assert example.target is not None, "the phrase names an object of the scene"
    Image.fromarray(example.image).save(folder / "scene.png")
    answer = Segmenter.load().segment(example.image, PHRASE)
    picture = figure(answer, coco_mask.decode(example.target) > 0)  # type: ignore[arg-type]
    picture.savefig(folder / "segment.png", dpi=110, facecolor=PAPER)
    # A palette of 256 colours: a third of the size, and nothing to be seen of it.
    Image.open(folder / "segment.png").convert("RGB").quantize(256).save(folder / "segment.png", optimize=True)


def figure(answer: Segmentation, truth: np.ndarray) -> pyplot.Figure:
    """Four panels of one answer above the steps that made it."""
    whole = pyplot.figure(figsize=(13, 5.8))
    panels = whole.subplots(1, 4)
    whole.subplots_adjust(left=0.025, right=0.975, top=0.93, bottom=0.38, wspace=0.1)
    photo = np.kron(answer.image, np.ones((ENLARGED, ENLARGED, 1), np.uint8))
    coarse, refined = (
        with_mask(photo, resized(mask, photo), COLOURS[0], 4) for mask in (answer.coarse_mask, answer.mask)
    )
    titles = ("image and phrase", "box and path, written", "coarse mask, drawn", "refined mask")
    for panel, shown, title in zip(panels, (photo, photo, coarse, refined), titles, strict=True):
        panel.imshow(shown)
        panel.set_axis_off()
        panel.set_title(title, color=INK, fontsize=14, weight="bold", pad=9)
    _path(panels[1], answer, photo.shape[0])
    ious = [mask_iou_of(mask, truth) for mask in (answer.coarse_mask, answer.mask)]
    said = (f"“{answer.phrase}”", _shortened(answer.path), f"IoU {ious[0]:.2f}", f"IoU {ious[1]:.2f}")
    for panel, text, size in zip(panels, said, (14, 9.5, 14, 14), strict=True):
        family = "monospace" if size < 10 else "sans-serif"
        panel.text(
            0.5, -0.07, text, transform=panel.transAxes, ha="center", va="top", color=INK, size=size, family=family
        )
    _pipeline(whole.add_axes((0.025, 0.02, 0.95, 0.25)))
    return whole


def mask_iou_of(mask: np.ndarray, truth: np.ndarray) -> float:
    """IoU of one mask and the true one."""
    return float((mask & truth).sum() / (mask | truth).sum())


def _path(panel: Axes, answer: Segmentation, side: int) -> None:
    x0, y0, x1, y1 = (side * corner for corner in answer.box)
    panel.add_patch(patches.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ls="--", lw=1.8, ec="white"))
    for polygon in answer.polygons:
        points = side * np.concatenate([polygon, polygon[:1]])
        panel.plot(*points.T, color="white", lw=4)
        panel.plot(*points.T, color=RED, lw=2, marker="o", ms=5, mec="white", mew=0.8)


def _shortened(path: str) -> str:
    """Both ends of a path's text."""
    commands = path.replace(" M", "\nM").replace(" L", "\nL").replace(" Z", "\nZ").splitlines()
    return f"{' '.join(commands[:3])}\n… {' '.join(commands[-3:])}"


def _pipeline(axes: Axes) -> None:
    axes.set(xlim=(0, 100), ylim=(0, 26))
    axes.set_axis_off()
    width, gap = 15.5, 5.4
    for number, (name, what) in enumerate(STEPS):
        left = number * (width + gap)
        axes.add_patch(
            patches.FancyBboxPatch(
                (left + 0.5, 12), width - 1, 13, boxstyle="round,pad=0.4", fc="white", ec="#c9ccd3", lw=1.2
            )
        )
        axes.text(left + width / 2, 22, name, ha="center", va="center", color=INK, size=12.5, weight="bold")
        axes.text(left + width / 2, 16, what, ha="center", va="center", color=FAINT, size=10.5)
        if number:
            start, end = (left - gap + 0.4, 18.5), (left - 0.2, 18.5)
            axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.6})
    for place, text in enumerate(STAGES):
        middle = 50 + (place - 1) * 33.5
        axes.text(middle, 4.5, text, ha="center", va="center", color=INK, size=11.5)
        axes.add_patch(
            patches.FancyBboxPatch(
                (middle - 15.5, 1.5), 31, 6, boxstyle="round,pad=0.4", fc="#f1e9e6", ec="none", zorder=0
            )
        )


if __name__ == "__main__":
    main()
