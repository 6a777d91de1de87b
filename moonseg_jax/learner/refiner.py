"""Training of the refinement head: every iteration is supervised on the head's own outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, UInt8

from moonseg_jax.learner.state import LearnerState, apply_gradients
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.refiner import RefinementHead, best_mask, for_this_backend
from moonseg_jax.types import SumAndCount

BOUNDARY_WINDOW = 5
"""Pixels whose window of this side holds both inside and outside are near the boundary."""


def boundary_weights(truth: Bool[Array, "N S S"], weight: float) -> Float[Array, "N S S"]:
    """1 everywhere, 1 + weight near the true boundary."""
    image = truth.astype(jnp.float32)[..., None]
    window = (BOUNDARY_WINDOW, BOUNDARY_WINDOW)
    highest = nn.max_pool(image, window, padding="SAME")
    lowest = -nn.max_pool(-image, window, padding="SAME")
    return 1.0 + weight * (highest - lowest)[..., 0]


def mask_losses(
    logits: Float[Array, "... S S"],
    truth: Bool[Array, "... S S"],
    weights: Float[Array, "... S S"],
    kind: Literal["bce", "focal"],
    dice_weight: float,
) -> Float[Array, "..."]:
    """Per mask: weighted mean of BCE (or of focal loss with gamma 2, Lin et al. 2017), plus weighted soft Dice."""
    target = truth.astype(jnp.float32)
    bce = optax.sigmoid_binary_cross_entropy(logits, target)
    probability = nn.sigmoid(logits)
    if kind == "focal":
        bce = bce * jnp.square(jnp.where(truth, 1.0 - probability, probability))
    pixels = jnp.sum(bce * weights, axis=(-2, -1)) / jnp.sum(weights, axis=(-2, -1))
    overlap = 2.0 * jnp.sum(probability * target, axis=(-2, -1)) + 1.0
    dice = 1.0 - overlap / (jnp.sum(probability + target, axis=(-2, -1)) + 1.0)
    return pixels + dice_weight * dice


def true_iou(logits: Float[Array, "... S S"], truth: Bool[Array, "... S S"]) -> Float[Array, "..."]:
    """IoU of thresholded masks with the truth; empty against empty is 1."""
    mask = logits > 0
    union = jnp.sum(mask | truth, axis=(-2, -1))
    return jnp.where(union > 0, jnp.sum(mask & truth, axis=(-2, -1)) / jnp.maximum(union, 1), 1.0)


def refiner_sums(
    logits: Float[Array, "N M S S"],
    predicted_iou: Float[Array, "N M"],
    truth: Bool[Array, "N S S"],
    *,
    kind: Literal["bce", "focal"],
    best_of_masks: bool,
    boundary_weight: float,
    dice_weight: float,
) -> dict[str, SumAndCount]:
    """Losses of one iteration as sums over crops and the number of crops.

    Args:
      logits: of all candidates.
      predicted_iou: raw scores.
      truth: ground truth in the crop's frame.
      kind: pixel loss.
      best_of_masks: only the candidate with the smallest loss is supervised; else the mean of all.
      boundary_weight: see `boundary_weights`.
      dice_weight: of soft Dice.

    Returns:
      `mask` and `iou` losses, and `refined_iou`, the true IoU of the candidate that the head itself would pick.
    """
    weights = boundary_weights(truth, boundary_weight)[:, None]
    losses = mask_losses(logits, truth[:, None], weights, kind, dice_weight)
    per_crop = losses.min(axis=-1) if best_of_masks else losses.mean(axis=-1)
    iou = true_iou(logits, truth[:, None])
    picked = jnp.take_along_axis(iou, jnp.argmax(predicted_iou, axis=-1)[:, None], axis=-1)
    count = jnp.asarray(truth.shape[0], jnp.float32)
    return {
        "mask": (jnp.sum(per_crop), count),
        "iou": (jnp.sum(jnp.square(predicted_iou - iou).mean(axis=-1)), count),
        "refined_iou": (jnp.sum(picked), count),
    }


CropEncoder = Callable[[Any, UInt8[Array, "N S S 3"]], tuple[Float[Array, "N gg W"], Float[Array, "N gg W"]]]
"""(policy's parameters, image crops) → final and early features, jitted."""


def make_crop_encoder(model: Moondream) -> CropEncoder:
    """The frozen half of the refiner: what the policy's vision encoder says of image crops."""

    @jax.jit
    def encode(params: Any, crops: Array) -> Any:
        return model.apply({"params": params}, crops, method="encode_crops")

    return encode


class Unrolled(NamedTuple):
    """What passes from one iteration of a gradient step to the next."""

    masks: Float[Array, "N S S"]
    """Probabilities the next iteration starts from; no gradient runs back through them."""
    gradients: Any
    """Of the losses so far, summed over iterations."""
    sums: dict[str, SumAndCount]
    """Losses so far; `refined_iou` of the newest iteration."""


class RefinerStep(NamedTuple):
    """A gradient step as compiled parts: one program runs once per iteration, so that compiling and memory do not grow
    with their number."""

    iterations: int
    start: Callable[[Any, Array], Unrolled]
    """(parameters, coarse masks) → what the first iteration starts from."""
    iterate: Callable[[Any, Any, Unrolled, Array], Unrolled]
    """(parameters, features, so far, truth) → what the next one starts from."""
    finish: Callable[[LearnerState, Any, dict[str, SumAndCount]], tuple[LearnerState, Array]]
    """(state, gradients, sums) → the state after the step, and the norm of the gradients."""

    def __call__(
        self,
        state: LearnerState,
        features: tuple[Float[Array, "N gg W"], Float[Array, "N gg W"]],
        coarse: Bool[Array, "N S S"],
        truth: Bool[Array, "N S S"],
    ) -> tuple[LearnerState, dict[str, SumAndCount]]:
        """Takes the step."""
        unrolled = self.start(state.params, coarse)
        for _ in range(self.iterations):
            unrolled = self.iterate(state.params, features, unrolled, truth)
        state, norm = self.finish(state, unrolled.gradients, unrolled.sums)
        return state, {**unrolled.sums, "gradient_norm": (norm, jnp.ones(()))}


def make_refiner_step(
    head: RefinementHead,
    optimizer: optax.GradientTransformation,
    *,
    kind: Literal["bce", "focal"],
    best_of_masks: bool,
    boundary_weight: float,
    dice_weight: float,
    iou_weight: float,
    average_decay: float,
) -> RefinerStep:
    """A gradient step: (state, features, coarse, truth) → (state, sums).

    Parameters are `{"refiner": …}`; features are the final and early ones of `make_crop_encoder`. Every iteration is
    supervised on the mask it makes of the one before; gradients do not cross iterations.
    """
    iterations, head = head.config.iterations, for_this_backend(head)

    def mean_loss(sums: dict[str, SumAndCount], parts: int = 1) -> Array:
        return (sums["mask"][0] + iou_weight * sums["iou"][0]) / (sums["mask"][1] * parts)

    @jax.jit
    def start(params: Any, coarse: Array) -> Unrolled:
        zero = (jnp.zeros(()), jnp.zeros(()))
        sums = {name: zero for name in ("mask", "iou", "refined_iou")}
        return Unrolled(coarse.astype(jnp.float32), jax.tree.map(jnp.zeros_like, params), sums)

    @functools.partial(jax.jit, donate_argnums=2)
    def iterate(params: Any, features: Any, so_far: Unrolled, truth: Array) -> Unrolled:
        def loss(params: Any) -> tuple[Array, tuple[dict[str, SumAndCount], Array]]:
            output: Any = head.apply({"params": params["refiner"]}, *features, so_far.masks)
            logits, scores = output
            sums = refiner_sums(
                logits, scores, truth, kind=kind, best_of_masks=best_of_masks, boundary_weight=boundary_weight,
                dice_weight=dice_weight,
            )  # fmt: skip
            return mean_loss(sums, iterations), (sums, best_mask(logits, scores)[0])

        gradients, (sums, masks) = jax.grad(loss, has_aux=True)(params)
        total = jax.tree.map(jnp.add, so_far.sums, sums)
        return Unrolled(
            masks, jax.tree.map(jnp.add, so_far.gradients, gradients), {**total, "refined_iou": sums["refined_iou"]}
        )

    @functools.partial(jax.jit, donate_argnums=0)
    def finish(state: LearnerState, gradients: Any, sums: dict[str, SumAndCount]) -> tuple[LearnerState, Array]:
        return apply_gradients(state, mean_loss(sums), gradients, optimizer, average_decay)

    return RefinerStep(iterations, start, iterate, finish)
