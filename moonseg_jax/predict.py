"""Masks from words: image and phrase in; path, box and mask out."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Decoder, Prediction
from moonseg_jax.images import ImageSource, crops_needed, decode_image
from moonseg_jax.paths.boxes import corners_from_box
from moonseg_jax.paths.svg import path_text, svg_document
from moonseg_jax.policy import Policy, load_policy
from moonseg_jax.refine import Refiner, load_refiner
from moonseg_jax.types import Example, Scene

OK = "ok"
EMPTY_PATH = "empty path: the policy drew nothing"
EMPTY_MASK = "empty mask: the path covers no pixel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation:
    """One answer; `status` is `ok`, or says what is missing and why."""

    image: UInt8[np.ndarray, "H W 3"]
    phrase: str
    path: str
    """SVG path text relative to the drawn box, in units of the box."""
    drawn_box: tuple[float, float, float, float]
    """cx, cy, w, h as decoded, in units of the image; it may reach over the border."""
    box: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max in units of the image, clipped to it."""
    polygons: tuple[Float[np.ndarray, "V 2"], ...]
    """Subpaths in units of the image."""
    coarse_mask: Bool[np.ndarray, "H W"]
    """The path filled."""
    mask: Bool[np.ndarray, "H W"]
    """The refined mask, or the coarse one where `status` says it was not refined."""
    status: str

    def save(self, path: Path) -> None:
        """Writes `.png` (the mask, 0 and 255), `.svg` (the path) or `.json` (path, box, mask and status).

        Raises:
          UserError: another ending, or the file cannot be written.
        """
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

    def _save_png(self, path: Path) -> None:
        Image.fromarray(np.where(self.mask, 255, 0).astype(np.uint8)).save(path)

    def _save_svg(self, path: Path) -> None:
        height, width = self.image.shape[:2]
        path.write_text(svg_document(self.path, self.drawn_box, width=width, height=height), encoding="utf-8")

    def _save_json(self, path: Path) -> None:
        corners = dict(zip(("x_min", "y_min", "x_max", "y_max"), self.box))
        drawn = dict(zip(("cx", "cy", "w", "h"), self.drawn_box))
        answer = {"phrase": self.phrase, "status": self.status, "path": self.path, "bbox": corners, "drawn_box": drawn}
        path.write_text(json.dumps({**answer, "coco": self.to_coco()}, indent=1) + "\n", encoding="utf-8")


class Segmenter:
    """A policy and a refiner, loaded once; every image size runs the same compiled programs."""

    def __init__(self, policy: Policy, params: Any, refiner: Refiner | None):
        """Use `load`."""
        self.policy, self.params, self.refiner = policy, params, refiner
        self._decoders: dict[int, Decoder] = {}

    @classmethod
    def load(cls, policy: Path | None = None, refiner: Path | None = None) -> Segmenter:
        """Loads weights.

        Args:
          policy: folder with policy weights; None takes the small policy shipped with the package, which knows
            coloured shapes only.
          refiner: folder with refiner weights. None takes the shipped refiner if the policy is the shipped one or
            the policy's folder holds refiner weights, and else leaves masks unrefined.

        Raises:
          UserError: a folder holds no weights, or weights of other sizes.
        """
        if policy is None:
            policy, refiner = shipped("rl"), refiner or shipped("refiner")
        loaded, params = load_policy(policy)
        if refiner is None and (policy / "refiner.safetensors").is_file():
            refiner = policy
        return cls(loaded, params, load_refiner(refiner, loaded, params) if refiner is not None else None)

    def segment(self, image: ImageSource, phrase: str) -> Segmentation:
        """Segments what the phrase says.

        Args:
          image: path, encoded bytes, Pillow image or uint8 array.
          phrase: what to segment.

        Raises:
          UserError: not an image, or a phrase the policy's vocabulary cannot say.
        """
        pixels = decode_image(image, orient=True)
        example = Example(image=pixels, phrase=phrase, target=None, image_id=0, example_id=0)
        self.policy.vocabulary.prompt(phrase)
        prediction = self._decoder(pixels)(self.params, [Scene(examples=(example,))])[0]
        coarse = prediction.mask()
        mask, status = coarse, OK
        if not coarse.any():
            status = EMPTY_MASK if prediction.polygons else EMPTY_PATH
        elif self.refiner is None:
            status = "unrefined: no refiner weights"
        else:
            refined = self.refiner.refine([pixels], [prediction.box], [coarse])[0]
            mask, status = refined.mask, OK if refined.status == "refined" else refined.status
        return self._answer(prediction, coarse, mask, status)

    def _decoder(self, pixels: np.ndarray) -> Decoder:
        crops = crops_needed([(pixels.shape[0], pixels.shape[1])], self.policy.config.vision)
        if crops not in self._decoders:
            self._decoders[crops] = Decoder(self.policy, images=1, phrases=1, crops=crops)
        return self._decoders[crops]

    def _answer(self, prediction: Prediction, coarse: np.ndarray, mask: np.ndarray, status: str) -> Segmentation:
        box: Any = prediction.box
        cx, cy, width, height = (float(value) for value in box)
        x0, y0, x1, y1 = (float(side) for side in corners_from_box(box))
        corner, extent = np.array([cx - width / 2, cy - height / 2]), np.array([width, height])
        relative = [(polygon - corner) / extent for polygon in prediction.polygons]
        return Segmentation(
            image=prediction.example.image, phrase=prediction.example.phrase, path=path_text(relative),
            drawn_box=(cx, cy, width, height), box=(x0, y0, x1, y1), polygons=prediction.polygons,
            coarse_mask=coarse, mask=mask, status=status,
        )  # fmt: skip


def shipped(name: str) -> Path:
    """Folder of a checkpoint shipped with the package: `sft`, `rl` or `refiner`."""
    return Path(str(resources.files("moonseg_jax") / "assets" / "shapes_tiny" / name))
