"""Held-out figures of a refinement head while it trains: what it mends, and what it breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.batch import true_mask
from moonseg_jax.evaluate import Decoder, Evaluation, Prediction
from moonseg_jax.metrics import MaskMetrics
from moonseg_jax.policy import Policy
from moonseg_jax.refine import Refined, Refiner
from moonseg_jax.synthetic_pairs import true_box
from moonseg_jax.types import Scene

WORSE_BY = 0.01
"""A refined mask is worse where its IoU is lower than the coarse one's by more than this."""

Look = Callable[[Sequence[Prediction], Sequence[Bool[np.ndarray, "H W"]], Sequence[Refined]], None]
"""Is shown the predictions of an evaluation, their coarse masks, and what the refiner made of these."""


def refined_evaluation(
    policy: Policy, policy_params: Any, scenes: Sequence[Scene], *, phrases: int, crops: int, look: Look | None = None
) -> Evaluation:
    """A function of the head's parameters that gives the figures after refinement.

    The coarse masks are the policy's greedy ones and are drawn once.

    Args:
      policy: draws the coarse masks; its vision encoder feeds the head.
      policy_params: its parameters.
      scenes: held-out scenes, decoded.
      phrases: phrases judged per scene.
      crops: crops per image.
      look: is shown the refined masks every time.

    Returns:
      Function (parameters of the head) → mIoU, cIoU, precision at .5 and boundary IoU of refined masks; `coarse_miou`
      and `coarse_biou_2px` before; `worse`, see `share_worse`; and `identity_iou`, the mean IoU with the ground truth
      that is left where the ground truth itself is refined, in the crop of its own box, over phrases with a target
      (NaN without any).
    """
    predictions = Decoder(policy, images=16, phrases=phrases, crops=crops)(policy_params, scenes)
    images = [prediction.example.image for prediction in predictions]
    truths = [true_mask(prediction.example) for prediction in predictions]
    coarse = [prediction.mask() for prediction in predictions]
    before = MaskMetrics()
    coarse_iou = np.array([before.add(mask, truth) for mask, truth in zip(coarse, truths)])
    with_target = [i for i, truth in enumerate(truths) if truth.any()]
    right = [truths[i] for i in with_target]
    refiner = Refiner(policy, policy_params, None)

    def evaluate(head_params: Any) -> dict[str, float]:
        refiner.replace_head(head_params)
        refined = refiner.refine(images, [prediction.box for prediction in predictions], coarse)
        if look is not None:
            look(predictions, coarse, refined)
        again = refiner.refine([images[i] for i in with_target], [true_box(truth) for truth in right], right)
        after, identity = MaskMetrics(), MaskMetrics()
        refined_iou = np.array([after.add(result.mask, truth) for result, truth in zip(refined, truths)])
        identity_iou = [identity.add(result.mask, truth) for result, truth in zip(again, right)]
        return {
            **after.summary(),
            "coarse_miou": before.summary()["miou"],
            "coarse_biou_2px": before.summary()["biou_2px"],
            "worse": share_worse(coarse_iou, refined_iou),
            "identity_iou": float(np.mean(identity_iou)) if identity_iou else float("nan"),
        }

    return evaluate


def share_worse(coarse_iou: Float[np.ndarray, " N"], refined_iou: Float[np.ndarray, " N"]) -> float:
    """Share of masks whose IoU refinement lowered by more than `WORSE_BY`."""
    return float(np.mean(coarse_iou > refined_iou + WORSE_BY))
