"""Rows → what the policy draws for each phrase, and the final mask, on all devices of a process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool

from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Decoder, Prediction
from moonseg_jax.evaluation.rows import Place, Row
from moonseg_jax.images import crops_needed
from moonseg_jax.policy import load_policy
from moonseg_jax.refine import Refined, load_refiner, refine_predictions
from moonseg_jax.rollout.noise import GREEDY
from moonseg_jax.sharding import make_mesh, put_replicated
from moonseg_jax.status import UNSAYABLE
from moonseg_jax.types import Example, Scene


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """All that was drawn for one phrase."""

    place: Place
    scene: Scene
    drawn: Prediction
    """The greedy path."""
    coarse: Bool[np.ndarray, "H W"]
    """That path, filled."""
    final: Refined
    """The refined mask, or the coarse one and why."""
    sampled: Prediction | None
    """One sample at T = 1; None where none is asked for."""


class Answerer:
    """A policy and a refiner on a mesh of this process's devices.

    A device decodes and refines so many images and crops at a time, whatever the number of devices: an answer does
    not depend on it, nor on what else lies in its batch.
    """

    def __init__(
        self,
        policy: Path,
        refiner: Path | None,
        *,
        batch: int,
        phrases: int,
        refine_batch: int,
        iterations: int | None,
        guard: bool,
        sample_seed: int | None,
    ):
        """Loads weights; programs are compiled at their first use, one for images of one crop and one for larger ones.

        Args:
          policy: its weights.
          refiner: its weights; None leaves the coarse masks as they are.
          batch: rows that a device decodes side by side.
          phrases: per row.
          refine_batch: crops that a device refines side by side.
          iterations: of the refiner; None takes the model's.
          guard: of the refiner, see `Refiner`.
          sample_seed: of samples at T = 1; None draws none.

        Raises:
          UserError: weights are missing or do not fit.
        """
        mesh = make_mesh(jax.local_devices())
        self._mesh, self.rows, self._phrases, self._sample_seed = mesh, batch * mesh.size, phrases, sample_seed
        self._policy, params = load_policy(policy)
        self._refiner = None
        if refiner is not None:
            self._refiner = load_refiner(refiner, self._policy, params, refine_batch, iterations, guard, mesh)
        self._params = put_replicated(mesh, params)
        self._decoders: dict[tuple[int, float], Decoder] = {}
        self.unsayable: str | None = None
        """What the vocabulary said of the first phrase that it cannot say."""

    @property
    def iterations(self) -> int:
        """Of the refiner; 0 where there is none."""
        return self._refiner.iterations if self._refiner else 0

    def __call__(self, block: Sequence[Row]) -> list[Answer]:
        """Answers to every phrase of the rows, in order.

        Raises:
          UserError: a batch of crops does not fit the memory.
        """
        told = {
            number: [example for example in row.examples if self._can_say(example)] for number, row in enumerate(block)
        }
        greedy = self._decode(told, GREEDY)
        sampled = self._decode(told, 1.0) if self._sample_seed is not None else {}
        places, scenes, drawn, samples, is_said = [], [], [], [], []
        for number, row in enumerate(block):
            paths, others = iter(greedy.get(number, ())), iter(sampled.get(number, ()))
            for offset, example in enumerate(row.examples):
                said = any(example is one for one in told[number])
                places.append(Place(scene=row.first.scene, position=row.first.position + offset))
                scenes.append(row.scene)
                drawn.append(next(paths) if said else _nothing(example))
                samples.append(None if self._sample_seed is None else next(others) if said else _nothing(example))
                is_said.append(said)
        final = refine_predictions(self._refiner, drawn)
        return [
            Answer(
                place=places[i], scene=scenes[i], drawn=drawn[i], coarse=drawn[i].mask(),
                final=final[i] if is_said[i] else dataclasses.replace(final[i], status=UNSAYABLE), sampled=samples[i],
            )
            for i in range(len(drawn))
        ]  # fmt: skip

    def _can_say(self, example: Example) -> bool:
        try:
            self._policy.vocabulary.prompt(example.phrase, example.references)
        except UserError as error:
            self.unsayable = self.unsayable or str(error)
            return False
        return True

    def _decode(self, told: dict[int, list[Example]], temperature: float) -> dict[int, list[Prediction]]:
        """Row number → predictions; images of one crop and larger ones go through different programs."""
        found: dict[int, list[Prediction]] = {}
        for crops, numbers in self._by_crops(told):
            decoder = self._decoder(crops, temperature)
            scenes = [Scene(examples=tuple(told[number])) for number in numbers]
            predictions = iter(decoder(self._params, scenes, self._sample_seed or 0))
            for number in numbers:
                found[number] = [next(predictions) for _ in told[number]]
        return found

    def _by_crops(self, told: dict[int, list[Example]]) -> Iterator[tuple[int, list[int]]]:
        groups: dict[int, list[int]] = {}
        for number, examples in told.items():
            if examples:
                height, width = examples[0].image.shape[:2]
                groups.setdefault(crops_needed([(height, width)], self._policy.config.vision), []).append(number)
        yield from sorted(groups.items())

    def _decoder(self, crops: int, temperature: float) -> Decoder:
        if (crops, temperature) not in self._decoders:
            self._decoders[crops, temperature] = Decoder(
                self._policy, images=self.rows, phrases=self._phrases, crops=crops, temperature=temperature,
                mesh=self._mesh,
            )  # fmt: skip
        return self._decoders[crops, temperature]


def _nothing(example: Example) -> Prediction:
    """The answer to a phrase that cannot be said: an empty mask."""
    return Prediction(example=example, box=np.zeros(4, np.float32), polygons=(), tokens=0)
