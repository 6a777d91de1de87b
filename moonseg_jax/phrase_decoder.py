"""Greedy paths for fixed numbers of images and phrases: whole, or as they grow."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moonseg_jax.batch import prompt_batch
from moonseg_jax.evaluate import Prediction, polygons_of
from moonseg_jax.paths.decode import box_from_tokens, edges_from_tokens
from moonseg_jax.policy import Policy
from moonseg_jax.rollout.chunks import advance, begin
from moonseg_jax.rollout.engine import EngineState
from moonseg_jax.types import EdgeBatch, Example, PromptBatch

SLOTS = 16
"""Most completions decoded side by side; further phrases take the slots of those that have ended."""
Rows = Sequence[Sequence[Example]]
"""Per image, its phrases."""


class PhraseDecoder:
    """Two compiled programs, compiled at their first call: one reads images and phrases, one draws tokens."""

    def __init__(self, policy: Policy, *, images: int, phrases: int, crops: int):
        """Fixes the shapes.

        Args:
          policy: the model and its language.
          images: per call.
          phrases: most of an image.
          crops: per image.
        """
        self._images, self._budget = images, policy.config.paths.max_new_tokens
        self._layout = policy.layout(phrases, crops)
        self._longest = images * phrases * self._budget
        self._begin = jax.jit(functools.partial(_begin, policy, min(SLOTS, images * phrases)))
        self._draw = jax.jit(functools.partial(_draw, policy), donate_argnums=1)

    def __call__(self, params: Any, rows: Rows) -> list[list[Prediction]]:
        """Predictions for every phrase of at most `images` images, in order."""
        *_, (whole, _) = self.stream(params, rows, [self._longest])
        return whole

    def stream(self, params: Any, rows: Rows, chunks: Iterable[int]) -> Iterator[tuple[list[list[Prediction]], bool]]:
        """What is drawn so far, chunk by chunk, and whether that is all.

        Of a path that is not complete, the vertices so far; of a box that is not complete, zeros. The last is what
        a call gives.

        Args:
          params: the policy's parameters.
          rows: at most `images` images.
          chunks: tokens until the next look; the last number is used until all is drawn.
        """
        padded = [*rows, *([rows[0]] * (self._images - len(rows)))]
        batch = prompt_batch(padded, self._layout)
        # Padding images must not be decoded: the slowest completion is waited for.
        batch = batch.replace(valid=batch.valid & (np.arange(self._images) < len(rows))[:, None])  # type: ignore[attr-defined]
        state, is_done, waiting, tokens = self._begin(params, batch), False, iter(chunks), 1
        while not is_done:
            tokens = next(waiting, tokens)
            state, drawn = self._draw(params, state, np.int32(tokens))
            unfinished, lengths, box, centres, edges = jax.device_get(drawn)
            is_done = not unfinished
            yield self._predictions(rows, lengths, box, centres, edges), is_done

    def _predictions(
        self, rows: Rows, lengths: np.ndarray, box: np.ndarray, centres: np.ndarray, edges: Any
    ) -> list[list[Prediction]]:
        predictions = []
        for image, examples in enumerate(rows):
            first = image * self._layout.phrases
            predictions.append(
                [
                    Prediction(
                        example=example, box=box[n], tokens=int(lengths[n]), centre_probability=float(centres[n]),
                        polygons=tuple(polygons_of(edges.points[n], edges.valid[n], edges.subpath[n])),
                    )
                    for n, example in enumerate(examples, first)
                ]
            )  # fmt: skip
        return predictions


def _begin(policy: Policy, slots: int, params: Any, batch: PromptBatch) -> EngineState:
    return begin(policy.model, policy.grammar, params, batch, slots)


def _draw(
    policy: Policy, params: Any, state: EngineState, tokens: Int[Array, ""]
) -> tuple[
    EngineState, tuple[Int[Array, ""], Int[Array, " N"], Float[Array, "N 4"], Float[Array, " N"], EdgeBatch]
]:  # fmt: skip
    state = advance(policy.model, policy.grammar, params, state, tokens)
    record = state.record
    box = box_from_tokens(record.token_ids, record.bins, policy.config.region, policy.config.paths)
    # A completion begins with the two coordinates of the box's centre; without a target it ends at once.
    centre = jnp.where(record.lengths > 1, jnp.exp(record.log_probs[:, 0] + record.log_probs[:, 1]), 0.0)
    edges = edges_from_tokens(record.token_ids, record.lengths, box, policy.tables)
    return state, (jnp.copy(state.unfinished), jnp.copy(record.lengths), box, centre, edges)
