"""Refinement at inference: crop, five iterations, paste, clean (specification §11)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, UInt8

from moonseg_jax.axes import ENGINES
from moonseg_jax.baselines import mask_iou
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Prediction
from moonseg_jax.mask_cleaning import clean_mask
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.refiner import (
    Refinement,
    RefinementHead,
    head_shapes,
    make_head,
    refine_each,
    refine_loop,
)
from moonseg_jax.pairs import MARGIN
from moonseg_jax.paths.boxes import corners_from_box
from moonseg_jax.policy import Policy
from moonseg_jax.refine_memory import require_memory
from moonseg_jax.rollout.memory import bytes_of, device_memory
from moonseg_jax.sharding import put_batch, put_replicated
from moonseg_jax.status import BAD_BOX, EMPTY_COARSE, EMPTY_CROP, EMPTY_PATH, EMPTY_RESULT, KEPT, NOT_ASKED, REFINED
from moonseg_jax.weights import REFINER, load_weights

Rectangle = tuple[int, int, int, int]
Improvement = tuple[Float[Array, "N S S"], Float[Array, " N"]]
"""Probabilities and predicted IoU of a batch of crops after one iteration, on the device."""
Fetched = tuple[Float[np.ndarray, "N S S"], Float[np.ndarray, " N"]]
"""The same on the host."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refined:
    """One refined mask; where it could not be refined, the coarse one and why."""

    mask: Bool[np.ndarray, "H W"]
    status: str
    score: float
    """IoU that the head predicts for its own mask; nan where nothing was refined."""


class Refiner:
    """The refinement head with its frozen vision encoder, compiled for batches of crops."""

    def __init__(
        self,
        policy: Policy,
        policy_params: Any,
        head_params: Any,
        batch: int = 16,
        iterations: int | None = None,
        guard: bool = False,
        mesh: Mesh | None = None,
    ):
        """Fixes the batch size and the number of iterations; one program is compiled, at the first batch.

        Args:
          policy: whose vision encoder feeds the head.
          policy_params: its parameters.
          head_params: parameters of the head.
          batch: crops per call of the compiled program; the last ones are padded.
          iterations: calls of the head, at least 1; None takes the model's.
          guard: keep a coarse mask that overlaps the refined one at least as well as the head expects the truth to:
            nothing speaks against it then. Off in the specification.
          mesh: of this process's devices, each of which refines `batch` crops; None runs on one device.

        Raises:
          UserError: no crop per batch, or no iteration.
        """
        if batch < 1:
            raise UserError(f"batch must be at least 1 crop, got {batch}")
        self.iterations = policy.config.refiner.iterations if iterations is None else iterations
        if self.iterations < 1:
            raise UserError(f"the refiner needs at least 1 iteration, got {iterations}; 0 is for leaving it out")
        self.guard = guard
        self.side, self._config, self._mesh = policy.config.vision.crop, policy.config, mesh
        self._per_device, self._batch = batch, batch * (1 if mesh is None else mesh.size)
        # Of the policy only the encoder is read; held on the device, or every batch would send it again.
        encoder = {"vision": policy_params["vision"]} if policy_params is not None else None
        self._params = self._placed((encoder, head_params))
        self._head = make_head(policy.config)
        self._run = self._program(functools.partial(improve_crops, policy.model, self._head, self.iterations))
        self._run_each = self._program(functools.partial(improve_crops_each, policy.model, self._head, self.iterations))

    def _placed(self, tree: Any) -> Any:
        return jax.device_put(tree) if self._mesh is None else put_replicated(self._mesh, tree)

    def _program(self, improve: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled at its first call; on a mesh, every device runs it on its own crops."""
        if self._mesh is None:
            return jax.jit(improve)
        mesh, rows = self._mesh, P(ENGINES)
        run = jax.jit(
            jax.shard_map(improve, mesh=mesh, in_specs=(P(), P(), rows, rows), out_specs=rows, check_vma=False)
        )
        return lambda encoder, head, *crops: run(encoder, head, *put_batch(mesh, crops))

    @property
    def head_params(self) -> Any:
        """Parameters of the head."""
        return self._params[1]

    def replace_head(self, head_params: Any) -> None:
        """Goes on with other parameters of the head, of the same sizes: nothing is compiled again."""
        self._params = (self._params[0], self._placed(head_params))

    def refine(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        boxes: Sequence[Float[np.ndarray, " 4"]],
        coarse: Sequence[Bool[np.ndarray, "H W"]],
    ) -> list[Refined]:
        """Refines coarse masks, of images of any sizes, a batch of crops at a time.

        Args:
          images: one per mask.
          boxes: decoded boxes cx, cy, w, h in units of the image.
          coarse: masks at the images' resolution.

        Raises:
          UserError: a batch does not fit the device's memory; names the batch that does.
        """

        def last(crops: np.ndarray, masks: np.ndarray) -> list[Fetched]:
            return [jax.device_get(self._run(*self._params, crops, masks))]

        return self._in_batches(last, images, boxes, coarse, 1)[0]

    def refine_each(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        boxes: Sequence[Float[np.ndarray, " 4"]],
        coarse: Sequence[Bool[np.ndarray, "H W"]],
    ) -> list[list[Refined]]:
        """What `refine` would give after 1, 2, … all iterations: one list per iteration, in one pass.

        The program is another one than that of `refine`, compiled at the first call.

        Raises:
          UserError: a batch does not fit the device's memory; names the batch that does.
        """

        def each(crops: np.ndarray, masks: np.ndarray) -> list[Fetched]:
            return jax.device_get(self._run_each(*self._params, crops, masks))

        return self._in_batches(each, images, boxes, coarse, self.iterations)

    def _in_batches(
        self,
        improve: Callable[[np.ndarray, np.ndarray], list[Fetched]],
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        boxes: Sequence[Float[np.ndarray, " 4"]],
        coarse: Sequence[Bool[np.ndarray, "H W"]],
        kept: int,
    ) -> list[list[Refined]]:
        """Crops, improves, pastes and cleans; `kept` lists, one for each iteration that `improve` gives."""
        unrefined = [Refined(mask=mask, status=EMPTY_COARSE, score=float("nan")) for mask in coarse]
        waiting: list[tuple[int, Rectangle]] = []
        for i, mask in enumerate(coarse):
            found = _crop_of(boxes[i], mask)
            if isinstance(found, str):
                unrefined[i] = dataclasses.replace(unrefined[i], status=found)
            else:
                waiting.append((i, found))
        if waiting:
            held, free = bytes_of(self._params), device_memory()
            require_memory(self._config, self._head, self._per_device, parameters=held, available=free)
        results = [list(unrefined) for _ in range(kept)]
        for start in range(0, len(waiting), self._batch):
            part = waiting[start : start + self._batch]
            crops = np.zeros((self._batch, self.side, self.side, 3), np.uint8)
            masks = np.zeros((self._batch, self.side, self.side), np.float32)
            for row, (i, rectangle) in enumerate(part):
                crops[row], masks[row] = cut(images[i], coarse[i], rectangle, self.side)
            for of_iteration, (improved, scores) in zip(results, improve(crops, masks), strict=True):
                for row, (i, rectangle) in enumerate(part):
                    result = _final(improved[row], float(scores[row]), rectangle, coarse[i])
                    of_iteration[i] = guarded(result, coarse[i]) if self.guard else result
        return results


def _final(
    probability: Float[np.ndarray, "S S"], score: float, rectangle: Rectangle, coarse: Bool[np.ndarray, "H W"]
) -> Refined:
    """A crop's mask at the image's resolution, cleaned; the coarse one where nothing is left of it."""
    pasted = paste(to_rectangle(probability, rectangle) > 0.5, rectangle, coarse.shape)
    if not pasted.any():
        return Refined(mask=coarse, status=EMPTY_RESULT, score=float("nan"))
    return Refined(mask=clean_mask(pasted), status=REFINED, score=score)


def guarded(result: Refined, coarse: Bool[np.ndarray, "H W"]) -> Refined:
    """The coarse mask again, where its IoU with the refined one is at least the IoU that the head predicts.

    Args:
      result: what refinement made of it.
      coarse: the mask before, not empty.
    """
    if result.status != REFINED or mask_iou(result.mask, coarse) < result.score:
        return result
    return Refined(mask=coarse, status=KEPT, score=result.score)


def refine_predictions(
    refiner: Refiner | None,
    predictions: Sequence[Prediction],
    coarse: Sequence[Bool[np.ndarray, "H W"]] | None = None,
) -> list[Refined]:
    """The final mask of every prediction: refined, or coarse with the reason.

    Args:
      refiner: None where refinement is not asked for.
      predictions: what the policy drew.
      coarse: their masks, in the same order; None draws them.

    Raises:
      UserError: a batch does not fit the device's memory.
    """
    if coarse is None:
        coarse = [prediction.mask() for prediction in predictions]
    if refiner is None:
        results = [Refined(mask=mask, status=NOT_ASKED, score=float("nan")) for mask in coarse]
    else:
        images = [prediction.example.image for prediction in predictions]
        results = refiner.refine(images, [prediction.box for prediction in predictions], coarse)
    for number, (drawn, result) in enumerate(zip(predictions, results)):
        if not result.mask.any():
            results[number] = dataclasses.replace(result, status=EMPTY_COARSE if drawn.polygons else EMPTY_PATH)
    return results


def _crop_of(box: Float[np.ndarray, " 4"], mask: Bool[np.ndarray, "H W"]) -> Rectangle | str:
    """The crop of a coarse mask, or the status that says why there is none."""
    if not mask.any():
        return EMPTY_COARSE
    if not np.isfinite(box).all():
        return BAD_BOX
    x0, y0, x1, y1 = pixel_rectangle(box, *mask.shape)
    return (x0, y0, x1, y1) if mask[y0:y1, x0:x1].any() else EMPTY_CROP


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


def improve_crops(
    model: Moondream,
    head: RefinementHead,
    iterations: int,
    model_params: Any,
    head_params: Any,
    crops: UInt8[Array, "N S S 3"],
    coarse: Float[Array, "N S S"],
) -> Improvement:
    """The network's part of refinement, as inference runs it: what `encode_and_refine` ends with.

    Args:
      model: whose vision encoder is used.
      head: the refinement head.
      iterations: calls of the head, at least 1.
      model_params: parameters of the model; those of `vision` are enough.
      head_params: parameters of the head.
      crops: pixels around the objects.
      coarse: masks to start from, 0 or 1 in the crops' frame.

    Returns:
      Probabilities of the best candidate after the last iteration, and its predicted IoU.
    """
    return improve_crops_each(model, head, iterations, model_params, head_params, crops, coarse)[-1]


def improve_crops_each(
    model: Moondream,
    head: RefinementHead,
    iterations: int,
    model_params: Any,
    head_params: Any,
    crops: UInt8[Array, "N S S 3"],
    coarse: Float[Array, "N S S"],
) -> list[Improvement]:
    """What `improve_crops` would give after each of the iterations; arguments as there."""
    features: Any = model.apply({"params": model_params}, crops, method="encode_crops")
    final, early = features
    return refine_each(head, head_params, final, early, coarse, iterations)


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


def load_refiner(
    folder: Path,
    policy: Policy,
    policy_params: Any,
    batch: int = 16,
    iterations: int | None = None,
    guard: bool = False,
    mesh: Mesh | None = None,
) -> Refiner:
    """The refiner whose head lies in a folder of weights.

    Args:
      folder: holds `refiner.safetensors`.
      policy: whose vision encoder feeds the head.
      policy_params: its parameters.
      batch: crops per call of the compiled program.
      iterations: calls of the head, at least 1; None takes the model's.
      guard: see `Refiner`.
      mesh: see `Refiner`.

    Raises:
      UserError: no head there, or one of other sizes; no crop per batch, or no iteration.
    """
    expected = head_shapes(make_head(policy.config), policy.config.vision.width)
    return Refiner(policy, policy_params, load_weights(folder, REFINER, expected), batch, iterations, guard, mesh)


def refiner_folder(policy: Path, refiner: Path | None) -> Path:
    """Where the refiner's weights lie: in the folder that is named, or else beside the policy's.

    Raises:
      UserError: none is named, and the policy's folder holds none; says what to do.
    """
    if refiner is not None or (policy / f"{REFINER}.safetensors").is_file():
        return refiner or policy
    raise UserError(
        f"{policy} holds no refiner weights ({REFINER}.safetensors); train a refiner with `moonseg train refiner` and "
        "name its folder with --refiner, or pass --no-refine (`moonseg eval`: --stage coarse)"
    )
