"""One answer: the path as drawn, the mask as refined, what became of it, and the files it is written to."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from moonseg_jax.errors import UserError
from moonseg_jax.paths.curves.refined_path import RefinedPath, refined_path
from moonseg_jax.paths.mask_path import path_of_mask
from moonseg_jax.paths.placed_path import PlacedPath
from moonseg_jax.paths.svg import svg_document
from moonseg_jax.status import REFINED

MAX_SUBPATHS = 256
"""Most outlines and holes of `lines`."""
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation:
    """One answer. `path`, boxes and `polygons` are what the policy drew, before refinement."""

    image: UInt8[np.ndarray, "H W 3"]
    phrase: str
    path: str
    """SVG path text relative to the drawn box, in units of the box."""
    drawn_box: Box
    """cx, cy, w, h as decoded, in units of the image; it may reach over the border."""
    box: Box
    """x_min, y_min, x_max, y_max of the drawn box in units of the image, clipped to it."""
    polygons: tuple[Float[np.ndarray, "V 2"], ...]
    """Subpaths in units of the image."""
    coarse_mask: Bool[np.ndarray, "H W"]
    """The path filled."""
    mask: Bool[np.ndarray, "H W"]
    """The refined mask, or the coarse one where `status` says it was not refined."""
    status: str
    """One of `status.STATUSES`: `refined`, or `unrefined: ` and why."""
    score: float
    """IoU that the refiner predicts of its mask; nan where nothing was refined."""
    presence: float = math.nan
    """Probability that the policy gave to the very centre its box has: high where it was sure of one place.

    It ranks phrases by whether their object is there, far better than `score` does: AUC .896 against .708 with the
    shipped weights (`moonseg bench presence`). It is no probability that the object is there, and
    low too where several objects fit the phrase; values of checkpoints with other coordinate bins do not compare. 0
    where no box was drawn; nan where the policy did not tell.
    """

    @functools.cached_property
    def refined(self) -> RefinedPath | None:
        """The refined mask traced as the official engine does, at the first use.

        None where nothing was refined, or where the mask holds nothing but specks of two pixels, which the engine
        does not trace.
        """
        return refined_path(self.mask) if self.status == REFINED else None

    @property
    def refined_path(self) -> str | None:
        """SVG path data of the refined mask in the engine's writing, relative to `refined_box`."""
        return None if self.refined is None else self.refined.path

    @property
    def refined_box(self) -> Box | None:
        """x_min, y_min, x_max, y_max of the refined mask's pixels, in units of the image."""
        return None if self.refined is None else self.refined.box

    def lines(self, tolerance: float = 0.5) -> PlacedPath:
        """The mask in the dialect that policies are trained on: `M`, `L`, `Z`, integers in a box of 960 units.

        Args:
          tolerance: farthest the path may stray from the mask's outline, in pixels.
        """
        return path_of_mask(self.mask, tolerance=tolerance, max_subpaths=MAX_SUBPATHS).path

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `.png` (the mask, 0 and 255), `.svg` (the path) or `.json` (paths, boxes, mask and status).

        The path is the refined one where there is one; the files say which. The `.json` holds the coarse one too.

        Raises:
          UserError: another ending, or the file cannot be written.
        """
        path = Path(path)
        writers = {".png": self._save_png, ".svg": self._save_svg, ".json": self._save_json}
        write = writers.get(path.suffix.lower())
        if write is None:
            raise UserError(f"{path}: the output must end in {', '.join(writers)}")
        try:
            write(path)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from error

    def to_coco(self) -> dict[str, Any]:
        """The mask as COCO compressed run-length encoding with its pixel box [x, y, w, h]."""
        encoded = coco_mask.encode(np.asfortranarray(self.mask.astype(np.uint8)))
        return {
            "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")},
            "bbox": [float(side) for side in coco_mask.toBbox(encoded)],
            "area": int(self.mask.sum()),
        }

    def to_moondream(self) -> dict[str, Any]:
        """The answer as Moondream's API gives it: `path` (SVG path data in units of the box) and `bbox`.

        Both are the refined ones where there are such. An answer without a path has an empty one, and no `bbox`.
        """
        if self.refined is not None:
            return _public_fields(self.refined.path, self.refined.box)
        return _public_fields(self.path, self.box) if self.path else {"path": ""}

    def to_detections(self) -> Any:
        """The mask as a `supervision.Detections` of one object, or of none where the mask is empty.

        Corners are the mask's extent in pixels, `confidence` is `score` (absent where nothing was refined), and the
        phrase is in `data["class_name"]`.

        Raises:
          UserError: the library is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise UserError("to_detections needs the library supervision: pip install supervision") from error
        if not self.mask.any():
            return supervision.Detections.empty()
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        return supervision.Detections(
            xyxy=np.array([corners], np.float32), mask=self.mask[None],
            confidence=None if math.isnan(self.score) else np.array([self.score], np.float32),
            data={"class_name": np.array([self.phrase])},
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON values: path and boxes of the final mask, the coarse ones beside them, COCO encoding."""
        coarse = _path_fields(self.path, self.box, self.drawn_box)
        final = coarse if self.refined is None else _path_fields(self.refined.path, *_both_boxes(self.refined.box))
        lines = self.lines()
        return {
            "phrase": self.phrase, "status": self.status, "path_is": self._which,
            "score": _number(self.score), "presence": _number(self.presence), **final, "coarse": coarse,
            "lines": {"path": lines.text, "box": _named(lines.box)}, "coco": self.to_coco(),
        }  # fmt: skip

    @property
    def _which(self) -> str:
        return "coarse" if self.refined is None else "refined"

    def _save_png(self, path: Path) -> None:
        Image.fromarray(np.where(self.mask, 255, 0).astype(np.uint8)).save(path)

    def _save_svg(self, path: Path) -> None:
        height, width = self.image.shape[:2]
        text, box = self.path, self.drawn_box
        if self.refined is not None:
            text, box = self.refined.path, _both_boxes(self.refined.box)[1]
        title = f"{self._which} path of: {self.phrase}"
        path.write_text(svg_document(text, box, width=width, height=height, title=title), encoding="utf-8")

    def _save_json(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")


def _path_fields(path: str, corners: Box, drawn: Box) -> dict[str, Any]:
    return {**_public_fields(path, corners), "drawn_box": _named(drawn)}


def _public_fields(path: str, corners: Box) -> dict[str, Any]:
    return {"path": path, "bbox": dict(zip(("x_min", "y_min", "x_max", "y_max"), corners))}


def _number(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else value


def _named(box: Box) -> dict[str, float]:
    return dict(zip(("cx", "cy", "w", "h"), box))


def _both_boxes(corners: Box) -> tuple[Box, Box]:
    """x_min, y_min, x_max, y_max, and the same as cx, cy, w, h."""
    x0, y0, x1, y1 = corners
    return corners, ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
