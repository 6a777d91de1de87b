"""Masks from words: image and phrase in; path, box and mask out, refined where there is a refiner."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import jax
import numpy as np
from jaxtyping import UInt8

from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Prediction
from moonseg_jax.images import ImageSource, crops_needed
from moonseg_jax.paths.boxes import corners_from_box
from moonseg_jax.phrase_decoder import PhraseDecoder
from moonseg_jax.policy import Policy, load_policy
from moonseg_jax.refine import Refined, Refiner, load_refiner, refine_predictions, refiner_folder
from moonseg_jax.segmentation import Segmentation
from moonseg_jax.shipped import shipped
from moonseg_jax.spatial_refs import SpatialRefs, prompt_references
from moonseg_jax.still_image import decode_still
from moonseg_jax.storage import place
from moonseg_jax.streaming import CHUNKS, Finished, PathProgress, StreamEvent
from moonseg_jax.types import Example
from moonseg_jax.weights import load_model_config

BATCH = 4
"""Rows decoded, and crops refined, side by side where there are several."""
Images = list[Any] | tuple[ImageSource, ...]
Phrases = list[str] | tuple[str, ...]
Row = tuple[Example, ...]
"""One image with its phrases."""


def _say(text: str) -> None:
    print(f"moonseg: {text}", file=sys.stderr, flush=True)


class Segmenter:
    """A policy and a refiner, loaded once.

    Every image size runs the same compiled programs: one set for images that fit one crop, one for larger ones; one
    for a single phrase, one for up to 2, 4, 8, … phrases; one for a single image, one for several.
    """

    def __init__(
        self,
        policy: Policy,
        params: Any,
        refiner: Refiner | None,
        *,
        batch: int = BATCH,
        say: Callable[[str], None] | None = None,
    ):
        """Use `load`."""
        if batch < 1:
            raise UserError(f"batch must be at least 1 row, got {batch}")
        self.policy, self.refiner, self.batch = policy, refiner, batch
        self.params = jax.device_put(params)
        self._say = say or (lambda text: None)
        self._decoders: dict[tuple[int, int, int], PhraseDecoder] = {}
        self._batch_refiner: Refiner | None = None
        self._told: set[int] = set()

    @classmethod
    def load(
        cls,
        policy: Path | None = None,
        refiner: Path | None = None,
        *,
        refine: bool = True,
        iterations: int | None = None,
        guard: bool = False,
        batch: int = BATCH,
        say: Callable[[str], None] | None = _say,
    ) -> Segmenter:
        """Loads weights; programs are compiled at their first use.

        Args:
          policy: folder with policy weights; None takes the small policy shipped with the package, which knows
            coloured shapes only.
          refiner: folder with refiner weights. None takes those in the policy's folder, and the shipped refiner
            with the shipped policy.
          refine: whether to refine; without, no refiner weights are needed.
          iterations: calls of the refinement head; None takes the model's, 0 is the same as `refine=False`.
          guard: keep coarse masks that the refined ones promise nothing better than, see `Refiner`.
          batch: rows decoded, and crops refined, side by side where several images or phrases are given.
          say: told whenever something is about to be compiled; by default a line goes to standard error. None: nobody
            is told.

        Raises:
          UserError: a folder holds no weights, or weights of other sizes; there is no refiner and one is asked for;
            fewer than 0 iterations, or an empty batch.
        """
        folder, head = find_weights(
            None if policy is None else place(policy), None if refiner is None else place(refiner),
            refine=refine, iterations=iterations,
        )  # fmt: skip
        loaded, params = load_policy(folder)
        params = jax.device_put(params)
        if head is None:
            return cls(loaded, params, None, batch=batch, say=say)
        found = load_refiner(head, loaded, params, batch=1, iterations=iterations, guard=guard)
        return cls(loaded, params, found, batch=batch, say=say)

    @overload
    def segment(
        self, image: ImageSource, phrase: str, spatial_refs: SpatialRefs | None = ..., refine: bool = ...,
        stream: Literal[False] = ...,
    ) -> Segmentation: ...  # fmt: skip

    @overload
    def segment(
        self, image: ImageSource, phrase: Phrases, spatial_refs: SpatialRefs | None = ..., refine: bool = ...,
        stream: Literal[False] = ...,
    ) -> list[Segmentation]: ...  # fmt: skip

    @overload
    def segment(
        self, image: Images, phrase: str | Phrases, spatial_refs: SpatialRefs | None = ..., refine: bool = ...,
        stream: Literal[False] = ...,
    ) -> list[Segmentation]: ...  # fmt: skip

    @overload
    def segment(
        self, image: ImageSource, phrase: str | Phrases, spatial_refs: SpatialRefs | None = ..., refine: bool = ...,
        *, stream: Literal[True],
    ) -> Iterator[StreamEvent]: ...  # fmt: skip

    def segment(
        self,
        image: ImageSource | Images,
        phrase: str | Phrases,
        spatial_refs: SpatialRefs | None = None,
        refine: bool = True,
        stream: bool = False,
    ) -> Segmentation | list[Segmentation] | Iterator[StreamEvent]:
        """Segments what the phrase says.

        Args:
          image: path, encoded bytes, Pillow image or uint8 array; or a list of them.
          phrase: what to segment. A list of phrases for one image, which is then read once; or a phrase for each
            image of a list, or one for all of them.
          spatial_refs: where to look, for one image: points (x, y) or boxes (x_min, y_min, x_max, y_max), in units
            of the image. They go into the prompt of every phrase; a policy must have been trained with them.
          refine: False leaves the coarse mask as it is, whether there is a refiner or not.
          stream: give the answer as it comes, for one image: see `streaming`.

        Returns:
          One answer; a list of answers where images or phrases are a list; an iterator of events where streamed.

        Raises:
          UserError: not an image, an animation, a phrase the policy's vocabulary cannot say, a reference outside of
            the image, or lists that do not fit each other.
        """
        references = prompt_references(spatial_refs or ())
        several = isinstance(image, (list, tuple))
        images: list[Any] = list(image) if isinstance(image, (list, tuple)) else [image]
        phrases = list(phrase) if isinstance(phrase, (list, tuple)) else [phrase]
        if several and (stream or references):
            raise UserError(
                f"{'stream' if stream else 'spatial_refs'} goes with one image, got a list of {len(images)}"
            )
        if several and len(phrases) not in (1, len(images)):
            raise UserError(f"{len(images)} images and {len(phrases)} phrases: give one phrase, or one for each image")
        self._check(phrases, references)
        of_image = [phrases] * len(images) if len(phrases) == 1 or not several else [[one] for one in phrases]
        rows = [_row(decode_still(one), words, references) for one, words in zip(images, of_image, strict=True)]
        if stream:
            return self._stream(rows[0], refine)
        answers = [answer for row in self._answer_rows(rows, refine, one_by_one=not several) for answer in row]
        return answers if several or not isinstance(phrase, str) else answers[0]

    def segment_each(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        phrases: Sequence[str],
    ) -> list[list[Segmentation]]:
        """Every phrase in every image, each image read once: a list of answers per image.

        Args:
          images: decoded ones.
          phrases: at least one.

        Raises:
          UserError: a phrase the vocabulary cannot say.
        """
        self._check(phrases, ())
        return self._answer_rows([_row(image, phrases, ()) for image in images], True, one_by_one=False)

    def _check(self, phrases: Sequence[str], references: tuple[tuple[float, ...], ...]) -> None:
        """Before an image is read or anything compiled."""
        if not phrases:
            raise UserError("no phrase; say what to segment, for example 'the red star'")
        for phrase in phrases:
            if not isinstance(phrase, str):
                raise UserError(f"the phrase must be text, got {phrase!r}; give a str or a list of them")
            self.policy.vocabulary.prompt(phrase, references)

    def _answer_rows(self, rows: Sequence[Row], refine: bool, *, one_by_one: bool) -> list[list[Segmentation]]:
        """Answers by row; images of one crop and larger ones go through different programs."""
        drawn: dict[int, list[Prediction]] = {}
        groups: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(self._crops(row), []).append(number)
        for crops, numbers in sorted(groups.items()):
            most = max(len(rows[number]) for number in numbers)
            decoder, at_once = self._decoder(crops, most, one_by_one)
            for start in range(0, len(numbers), at_once):
                part = numbers[start : start + at_once]
                found = decoder(self.params, [rows[number] for number in part])
                drawn |= dict(zip(part, found, strict=True))
        flat = [prediction for number in range(len(rows)) for prediction in drawn[number]]
        answers = iter(self._finish(flat, refine, one_by_one=one_by_one and len(flat) == 1))
        return [[next(answers) for _ in row] for row in rows]

    def _stream(self, row: Row, refine: bool) -> Iterator[StreamEvent]:
        decoder, _ = self._decoder(self._crops(row), len(row), one_by_one=True)
        progress = [PathProgress(number) for number in range(len(row))]
        for (drawn,), is_done in decoder.stream(self.params, [row], CHUNKS):
            for one, prediction in zip(progress, drawn, strict=True):
                yield from one.news(prediction, is_done=is_done)
        for number, answer in enumerate(self._finish(drawn, refine, one_by_one=len(drawn) == 1)):
            yield Finished(number=number, segmentation=answer)

    def _finish(self, drawn: Sequence[Prediction], refine: bool, *, one_by_one: bool) -> list[Segmentation]:
        refiner = self._refiner_of(one_by_one) if refine else None
        return [_answer(*pair) for pair in zip(drawn, refine_predictions(refiner, drawn), strict=True)]

    def _crops(self, row: Row) -> int:
        height, width = row[0].image.shape[:2]
        return crops_needed([(height, width)], self.policy.config.vision)

    def _decoder(self, crops: int, phrases: int, one_by_one: bool) -> tuple[PhraseDecoder, int]:
        """A decoder of one of few shapes, and how many images it takes."""
        room = 1 << (phrases - 1).bit_length()
        images = 1 if one_by_one else max(1, self.batch // room)
        key = images, room, crops
        if key not in self._decoders:
            self._decoders[key] = PhraseDecoder(self.policy, images=images, phrases=room, crops=crops)
            self._say(
                f"compiling for {images} image(s) at a time, {room} phrase(s) and {crops} crop(s) each; only this once"
            )
        return self._decoders[key], images

    def _refiner_of(self, one_by_one: bool) -> Refiner | None:
        first = self.refiner
        if first is None:
            return None
        size = 1 if one_by_one else self.batch
        if size not in self._told:
            self._told.add(size)
            self._say(f"compiling the refinement of {size} mask(s) at a time; only this once")
        if one_by_one:
            return first
        if self._batch_refiner is None:
            self._batch_refiner = Refiner(
                self.policy, self.params, first.head_params, self.batch, first.iterations, first.guard
            )
        return self._batch_refiner


def _row(image: np.ndarray, phrases: Sequence[str], references: tuple[tuple[float, ...], ...]) -> Row:
    return tuple(
        Example(image=image, phrase=phrase, target=None, image_id=0, example_id=0, references=references)
        for phrase in phrases
    )


def _answer(prediction: Prediction, final: Refined) -> Segmentation:
    box: Any = prediction.box
    cx, cy, width, height = (float(value) for value in box)
    x0, y0, x1, y1 = (float(side) for side in corners_from_box(box))
    return Segmentation(
        image=prediction.example.image, phrase=prediction.example.phrase, path=prediction.path(),
        drawn_box=(cx, cy, width, height), box=(x0, y0, x1, y1), polygons=prediction.polygons,
        coarse_mask=prediction.mask(), mask=final.mask, status=final.status, score=final.score,
        presence=prediction.centre_probability,
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
