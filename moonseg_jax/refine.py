"""Refinement at inference: crop, five iterations, paste, clean (specification §11)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from moonseg_jax.mask_cleaning import clean_mask
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.refiner import Refinement, RefinementHead, head_shapes, make_head, refine_loop
from moonseg_jax.pairs import MARGIN
from moonseg_jax.paths.boxes import corners_from_box
from moonseg_jax.policy import Policy
from moonseg_jax.weights import REFINER, load_weights

REFINED = "refined"
EMPTY_COARSE = "unrefined: empty coarse mask"
EMPTY_CROP = "unrefined: empty crop"
EMPTY_RESULT = "unrefined: the refiner's mask is empty"
Rectangle = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refined:
    """One refined mask; where it could not be refined, the coarse one and why."""

    mask: Bool[np.ndarray, "H W"]
    status: str
    score: float
    """Predicted IoU; nan where nothing was refined."""


class Refiner:
    """The refinement head with its frozen vision encoder, compiled for batches of crops."""

    def __init__(self, policy: Policy, policy_params: Any, head_params: Any, batch: int = 16):
        """Fixes the batch size.

        Args:
          policy: whose vision encoder feeds the head.
          policy_params: its parameters.
          head_params: parameters of the head.
          batch: crops per call of the compiled program.
        """
        self.side, self._batch = policy.config.vision.crop, batch
        self._params = (policy_params, head_params)
        self._run = jax.jit(functools.partial(_improve, policy, make_head(policy.config)))

    @property
    def head_params(self) -> Any:
        """Parameters of the head."""
        return self._params[1]

    def replace_head(self, head_params: Any) -> None:
        """Goes on with other parameters of the head, of the same sizes: nothing is compiled again."""
        self._params = (self._params[0], head_params)

    def refine(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        boxes: Sequence[Float[np.ndarray, " 4"]],
        coarse: Sequence[Bool[np.ndarray, "H W"]],
    ) -> list[Refined]:
        """Refines coarse masks.

        Args:
          images: one per mask.
          boxes: decoded boxes cx, cy, w, h in units of the image.
          coarse: masks at the images' resolution.
        """
        results = [Refined(mask=mask, status=EMPTY_COARSE, score=float("nan")) for mask in coarse]
        waiting: list[tuple[int, Rectangle]] = []
        for i, mask in enumerate(coarse):
            if mask.any():
                rectangle = pixel_rectangle(boxes[i], *mask.shape)
                x0, y0, x1, y1 = rectangle
                if mask[y0:y1, x0:x1].any():
                    waiting.append((i, rectangle))
                else:
                    results[i] = dataclasses.replace(results[i], status=EMPTY_CROP)
        for start in range(0, len(waiting), self._batch):
            part = waiting[start : start + self._batch]
            crops = np.zeros((self._batch, self.side, self.side, 3), np.uint8)
            masks = np.zeros((self._batch, self.side, self.side), np.float32)
            for row, (i, rectangle) in enumerate(part):
                crops[row], masks[row] = cut(images[i], coarse[i], rectangle, self.side)
            improved, scores = jax.device_get(self._run(*self._params, crops, masks))
            for row, (i, rectangle) in enumerate(part):
                pasted = paste(to_rectangle(improved[row], rectangle) > 0.5, rectangle, coarse[i].shape)
                if pasted.any():
                    results[i] = Refined(mask=clean_mask(pasted), status=REFINED, score=float(scores[row]))
                else:
                    results[i] = dataclasses.replace(results[i], status=EMPTY_RESULT)
        return results


def pixel_rectangle(box: Float[np.ndarray, " 4"], height: int, width: int) -> Rectangle:
    """x0, y0, x1, y1 in pixels: the box grown by 25 % per side, truncated, clipped to the image (§11.2)."""
    corners: Any = box
    x0, y0, x1, y1 = (float(side) for side in corners_from_box(corners))
    dx, dy = MARGIN * (x1 - x0) * width, MARGIN * (y1 - y0) * height
    return (
        max(int(x0 * width - dx), 0),
        max(int(y0 * height - dy), 0),
        min(int(x1 * width + dx), width),
        min(int(y1 * height + dy), height),
    )


def encode_and_refine(
    model: Moondream,
    head: RefinementHead,
    model_params: Any,
    head_params: Any,
    crops: UInt8[Array, "N S S 3"],
    coarse: Float[Array, "N S S"],
) -> tuple[Float[Array, "N gg W"], Float[Array, "N gg W"], Refinement]:
    """The network's part of refinement: features once, then all iterations of the head (§11.4, §11.5).

    Args:
      model: whose vision encoder is used.
      head: the refinement head.
      model_params: parameters of the model; those of `vision` are enough.
      head_params: parameters of the head.
      crops: pixels around the objects.
      coarse: masks to start from, 0 or 1 in the crops' frame.

    Returns:
      Final features, early features, and what every iteration gave.
    """
    features: Any = model.apply({"params": model_params}, crops, method="encode_crops")
    final, early = features
    return final, early, refine_loop(head, head_params, final, early, coarse, head.config.iterations)


def cut(
    image: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], rectangle: Rectangle, side: int
) -> tuple[UInt8[np.ndarray, "S S 3"], Float[np.ndarray, "S S"]]:
    """Image and mask (as 0 and 1) inside a rectangle, stretched to `side`: bilinear and nearest (§11.3)."""
    x0, y0, x1, y1 = rectangle
    pixels = cv2.resize(image[y0:y1, x0:x1], (side, side), interpolation=cv2.INTER_LINEAR)
    inside = mask[y0:y1, x0:x1].astype(np.uint8)
    return pixels, cv2.resize(inside, (side, side), interpolation=cv2.INTER_NEAREST).astype(np.float32)


def to_rectangle(probability: Float[np.ndarray, "S S"], rectangle: Rectangle) -> Float[np.ndarray, "h w"]:
    """Probabilities stretched back to the rectangle's pixels, bilinear (§11.6)."""
    x0, y0, x1, y1 = rectangle
    return cv2.resize(probability, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)


def paste(inside: Bool[np.ndarray, "h w"], rectangle: Rectangle, shape: tuple[int, ...]) -> Bool[np.ndarray, "H W"]:
    """A mask of `shape` that is empty outside of the rectangle (§11.6)."""
    x0, y0, x1, y1 = rectangle
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = inside
    return mask


def load_refiner(folder: Path, policy: Policy, policy_params: Any) -> Refiner:
    """The refiner whose head lies in a folder of weights.

    Raises:
      UserError: no head there, or one of other sizes.
    """
    expected = head_shapes(make_head(policy.config), policy.config.vision.width)
    return Refiner(policy, policy_params, load_weights(folder, REFINER, expected))


def _improve(
    policy: Policy,
    head: RefinementHead,
    policy_params: Any,
    head_params: Any,
    crops: UInt8[Array, "N S S 3"],
    coarse: Float[Array, "N S S"],
) -> tuple[Float[Array, "N S S"], Float[Array, " N"]]:
    _, _, refined = encode_and_refine(policy.model, head, policy_params, head_params, crops, coarse)
    return refined.masks[-1], jnp.max(refined.iou[-1], axis=-1)
