"""Held-out evaluation: greedy paths, drawn at the original resolution, compared with the ground truth."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Bool, Float

from moonseg_jax.axes import ENGINES
from moonseg_jax.batch import prompt_batch, true_mask
from moonseg_jax.images import crops_needed
from moonseg_jax.metrics import MaskMetrics
from moonseg_jax.paths.decode import box_from_tokens, edges_from_tokens
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.svg import path_text
from moonseg_jax.policy import Policy
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import GREEDY, sample_keys
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.sharding import put_batch
from moonseg_jax.types import Example, PromptBatch, Scene


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the policy drew for one example."""

    example: Example
    box: Float[np.ndarray, "4"]
    """cx, cy, w, h in units of the image."""
    polygons: tuple[Float[np.ndarray, "V 2"], ...]
    """Subpaths in units of the image."""
    tokens: int
    """Completion length, EOS included."""
    centre_probability: float = math.nan
    """What the policy gave to the two coordinates that the box has its centre at; 0 where it drew none, nan where
    nobody asked."""

    def mask(self) -> Bool[np.ndarray, "H W"]:
        """The path filled at the image's resolution."""
        height, width = self.example.image.shape[:2]
        return fill([polygon * np.array([width, height]) for polygon in self.polygons], height, width)

    def path(self) -> str:
        """SVG path text relative to the drawn box, in units of the box."""
        cx, cy, width, height = (float(value) for value in self.box)
        corner, extent = np.array([cx - width / 2, cy - height / 2]), np.array([width, height])
        return path_text([(polygon - corner) / extent for polygon in self.polygons])


class Decoder:
    """Compiled decoding of fixed-shape batches, for evaluation and prediction."""

    def __init__(
        self,
        policy: Policy,
        *,
        images: int,
        phrases: int,
        crops: int = 1,
        temperature: float = GREEDY,
        mesh: Mesh | None = None,
    ):
        """Fixes the shapes: `images` with `phrases` each per call.

        Args:
          policy: the model and its language.
          images: per call, a multiple of the mesh's devices.
          phrases: per image.
          crops: per image.
          temperature: 0 for the best tokens.
          mesh: of this process's devices, each of which decodes its own images with parameters of its own; what an
            image gets depends on the images per device alone. None runs on one device.
        """
        self.policy, self.images, self.temperature, self._mesh = policy, images, temperature, mesh
        self.layout = policy.layout(phrases, crops)
        decode = functools.partial(_decode, policy, temperature)
        if mesh is not None:
            rows = P(ENGINES)
            decode = jax.shard_map(decode, mesh=mesh, in_specs=(P(), rows, P()), out_specs=rows, check_vma=False)
        self._decode = jax.jit(decode)

    def __call__(self, params: Any, scenes: Sequence[Scene], seed: int = 0) -> list[Prediction]:
        """Predictions for every example of every scene (the first `phrases` of each), in order."""
        predictions: list[Prediction] = []
        for start in range(0, len(scenes), self.images):
            rows = [scene.examples[: self.layout.phrases] for scene in scenes[start : start + self.images]]
            predictions += self._batch(params, rows, seed)
        return predictions

    def _batch(self, params: Any, rows: Sequence[Sequence[Example]], seed: int) -> list[Prediction]:
        padded = [*rows, *([rows[0]] * (self.images - len(rows)))]
        batch = prompt_batch(padded, self.layout)
        if self._mesh is not None:
            batch = put_batch(self._mesh, batch)
        lengths, box, edges = jax.device_get(self._decode(params, batch, jax.random.key(seed)))
        predictions = []
        for i, examples in enumerate(rows):
            for k, example in enumerate(examples):
                n = i * self.layout.phrases + k
                predictions.append(
                    Prediction(
                        example=example, box=box[n], tokens=int(lengths[n]),
                        polygons=tuple(polygons_of(edges.points[n], edges.valid[n], edges.subpath[n])),
                    )
                )  # fmt: skip
        return predictions


def _decode(policy: Policy, temperature: float, params: Any, batch: PromptBatch, key: jax.Array) -> tuple:
    keys = sample_keys(key, jnp.zeros((), jnp.int32), batch.example_ids, 1)
    sampling = Sampling(temperature=temperature, record_experts=False)
    rollouts, _ = sample(policy.model, policy.grammar, params, batch, keys, sampling)
    box = box_from_tokens(rollouts.token_ids, rollouts.bins, policy.config.region, policy.config.paths)
    edges = edges_from_tokens(rollouts.token_ids, rollouts.lengths, box, policy.tables)
    return rollouts.lengths, box, edges


def polygons_of(points: np.ndarray, valid: np.ndarray, subpath: np.ndarray) -> Iterator[np.ndarray]:
    """Start points of one completion's valid edges, (x, y) in units of the image, one array per subpath."""
    for number in np.unique(subpath[valid]):
        yield points[valid & (subpath == number), 0]


def mask_metrics(
    predictions: Sequence[Prediction], masks: Sequence[Bool[np.ndarray, "H W"]] | None = None
) -> MaskMetrics:
    """Metrics of the predictions' masks, or of other masks for the same examples (refined ones)."""
    metrics = MaskMetrics()
    for i, prediction in enumerate(predictions):
        metrics.add(prediction.mask() if masks is None else masks[i], true_mask(prediction.example))
    return metrics


def held_out_scenes(source: Any, count: int) -> list[Scene]:
    """The first `count` scenes of a split, decoded."""
    return [source[i] for i in range(min(count, len(source)))]


def crops_of(scenes: Sequence[Scene], policy: Policy) -> int:
    """Crops that a policy needs for the largest image of these scenes."""
    return crops_needed((scene.examples[0].image.shape[:2] for scene in scenes), policy.config.vision)


Evaluation = Callable[[Any], dict[str, float]]
Look = Callable[[Sequence[Prediction], Sequence[Bool[np.ndarray, "H W"]]], None]
"""Is shown the predictions of an evaluation and their masks."""


def coarse_evaluation(
    policy: Policy,
    scenes: Sequence[Scene],
    *,
    phrases: int,
    crops: int = 1,
    sampled: bool = False,
    seed: int = 0,
    look: Look | None = None,
) -> Evaluation:
    """A function of the parameters that gives the held-out figures of these scenes.

    Args:
      policy: the model and its language.
      scenes: held-out scenes, decoded.
      phrases: phrases judged per scene.
      crops: crops per image.
      sampled: also judge one sample at T = 1 per phrase, as `sampled_miou`.
      seed: of that sample.
      look: is shown the greedy paths every time.

    Returns:
      Function (parameters) → mIoU, cIoU, precision at .5, boundary IoU at 2 px of greedy paths, their mean token
      count, and `sampled_miou` where asked for.
    """
    greedy = Decoder(policy, images=16, phrases=phrases, crops=crops)
    sampler = Decoder(policy, images=16, phrases=phrases, crops=crops, temperature=1.0) if sampled else None

    def evaluate(params: Any) -> dict[str, float]:
        predictions = greedy(params, scenes)
        masks = [prediction.mask() for prediction in predictions]
        figures = {
            **mask_metrics(predictions, masks).summary(), "tokens": float(np.mean([p.tokens for p in predictions]))
        }  # fmt: skip
        if look is not None:
            look(predictions, masks)
        if sampler is not None:
            figures["sampled_miou"] = mask_metrics(sampler(params, scenes, seed)).summary()["miou"]
        return figures

    return evaluate
