"""Masks from words: image and phrase in; path, box and mask out, refined where there is a refiner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Decoder, Prediction
from moonseg_jax.images import ImageSource, crops_needed, decode_image
from moonseg_jax.paths.boxes import corners_from_box
from moonseg_jax.policy import Policy, load_policy
from moonseg_jax.refine import Refined, Refiner, load_refiner, refine_predictions, refiner_folder
from moonseg_jax.segmentation import Segmentation
from moonseg_jax.shipped import shipped
from moonseg_jax.types import Example, Scene
from moonseg_jax.weights import load_model_config


class Segmenter:
    """A policy and a refiner, loaded once; every image size runs the same compiled programs."""

    def __init__(self, policy: Policy, params: Any, refiner: Refiner | None):
        """Use `load`."""
        self.policy, self.params, self.refiner = policy, params, refiner
        self._decoders: dict[int, Decoder] = {}

    @classmethod
    def load(
        cls,
        policy: Path | None = None,
        refiner: Path | None = None,
        *,
        refine: bool = True,
        iterations: int | None = None,
        guard: bool = False,
    ) -> Segmenter:
        """Loads weights.

        Args:
          policy: folder with policy weights; None takes the small policy shipped with the package, which knows
            coloured shapes only.
          refiner: folder with refiner weights. None takes those in the policy's folder, and the shipped refiner
            with the shipped policy.
          refine: whether to refine; without, no refiner weights are needed.
          iterations: calls of the refinement head; None takes the model's, 0 is the same as `refine=False`.
          guard: keep coarse masks that the refined ones promise nothing better than, see `Refiner`.

        Raises:
          UserError: a folder holds no weights, or weights of other sizes; there is no refiner and one is asked for;
            or fewer than 0 iterations.
        """
        folder, head = find_weights(policy, refiner, refine=refine, iterations=iterations)
        loaded, params = load_policy(folder)
        if head is None:
            return cls(loaded, params, None)
        return cls(loaded, params, load_refiner(head, loaded, params, batch=1, iterations=iterations, guard=guard))

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
        return self._answer(prediction, refine_predictions(self.refiner, [prediction])[0])

    def _decoder(self, pixels: np.ndarray) -> Decoder:
        crops = crops_needed([(pixels.shape[0], pixels.shape[1])], self.policy.config.vision)
        if crops not in self._decoders:
            self._decoders[crops] = Decoder(self.policy, images=1, phrases=1, crops=crops)
        return self._decoders[crops]

    def _answer(self, prediction: Prediction, final: Refined) -> Segmentation:
        box: Any = prediction.box
        cx, cy, width, height = (float(value) for value in box)
        x0, y0, x1, y1 = (float(side) for side in corners_from_box(box))
        return Segmentation(
            image=prediction.example.image, phrase=prediction.example.phrase, path=prediction.path(),
            drawn_box=(cx, cy, width, height), box=(x0, y0, x1, y1), polygons=prediction.polygons,
            coarse_mask=prediction.mask(), mask=final.mask, status=final.status, score=final.score,
        )  # fmt: skip


def find_weights(
    policy: Path | None, refiner: Path | None, *, refine: bool, iterations: int | None
) -> tuple[Path, Path | None]:
    """Folders of the policy's and the refiner's weights; None for the latter where refinement is not asked for.

    Args:
      policy: None takes the shipped one, and its refiner unless another is named.
      refiner: None takes the one in the policy's folder.
      refine: whether to refine.
      iterations: of the refiner; 0 asks for none.

    Raises:
      UserError: there is no policy, or no refiner; or the settings contradict each other.
    """
    if iterations is not None and iterations < 0:
        raise UserError(f"--iterations must not be negative, got {iterations}; 0 leaves refinement out")
    if not refine or iterations == 0:
        if refiner is not None:
            raise UserError(f"--refiner {refiner} and no refinement exclude each other; leave one of them out")
        return policy or shipped("rl"), None
    if policy is None:
        return shipped("rl"), refiner or shipped("refiner")
    load_model_config(policy)
    return policy, refiner_folder(policy, refiner)
