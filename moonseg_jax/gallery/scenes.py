"""One held-out scene beside what the model made of it, and how it follows from predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from moonseg_jax.baselines import mask_iou
from moonseg_jax.batch import true_mask
from moonseg_jax.evaluate import Prediction
from moonseg_jax.refine import Refined, refine_predictions


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GalleryItem:
    """One held-out scene with what the model made of it."""

    image: UInt8[np.ndarray, "H W 3"]
    phrase: str
    polygons: tuple[Float[np.ndarray, "V 2"], ...]
    """Subpaths of the predicted path: (x, y) vertices in units of the image; empty for an empty path."""
    coarse: Bool[np.ndarray, "H W"]
    refined: Bool[np.ndarray, "H W"] | None
    """None where refinement did not run."""
    truth: Bool[np.ndarray, "H W"]
    iou_coarse: float
    iou_refined: float | None
    status: str
    """`refined` or `unrefined: why`, see `moonseg_jax.status`."""

    @property
    def iou(self) -> float:
        """IoU of the final mask: the refined one, or else the coarse one."""
        return self.iou_coarse if self.iou_refined is None else self.iou_refined


@dataclasses.dataclass(frozen=True, kw_only=True)
class GallerySection:
    """Scenes that belong together: the worst, the typical, the best."""

    title: str
    note: str
    """How they were chosen, in a sentence."""
    items: tuple[GalleryItem, ...]


def judged_scenes(
    predictions: Sequence[Prediction],
    coarse: Sequence[Bool[np.ndarray, "H W"]],
    refined: Sequence[Refined] | None = None,
) -> list[GalleryItem]:
    """Scenes as the gallery shows them.

    Args:
      predictions: of the policy.
      coarse: their masks, in the same order.
      refined: what the refiner made of them, in the same order; None where there is none.
    """
    final = refine_predictions(None, predictions, coarse) if refined is None else refined
    items = []
    for prediction, drawn, one in zip(predictions, coarse, final, strict=True):
        truth = true_mask(prediction.example)
        items.append(
            GalleryItem(
                image=prediction.example.image, phrase=prediction.example.phrase, polygons=prediction.polygons,
                coarse=drawn, refined=None if refined is None else one.mask, truth=truth,
                iou_coarse=mask_iou(drawn, truth), iou_refined=None if refined is None else mask_iou(one.mask, truth),
                status=one.status,
            )
        )  # fmt: skip
    return items
