"""Whether training waits for its data: the loader alone, the gradient step alone, and both together."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from data_pipelines.build import build_shapes
from data_pipelines.loader import scene_batches
from data_pipelines.source import open_split
from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.bench.timing import fastest
from moonseg_jax.config import PRESETS
from moonseg_jax.learner.optimizers import OptimizerConfig, make_optimizer
from moonseg_jax.learner.sft import make_sft_step
from moonseg_jax.learner.state import init_state
from moonseg_jax.policy import Policy
from moonseg_jax.types import PromptBatch, Scene, TargetBatch

Batch = tuple[PromptBatch, TargetBatch]
EMBEDDED_SCENES = 512
WARM_UP = 2
"""Steps taken together before time counts: the reading threads fill their buffer while the first one compiles."""


def bench_data(
    *,
    preset: str,
    data: Path | None,
    images_per_batch: int,
    phrases_per_image: int,
    crops: int,
    steps: int,
    threads: int,
) -> dict[str, Any]:
    """Times the loader of supervised learning, its gradient step, and a run of both.

    Args:
      preset: whose sizes.
      data: built data set with a split `train`; None builds embedded scenes in a temporary folder.
      images_per_batch: of a step.
      phrases_per_image: of a step.
      crops: per image.
      steps: that are timed together; as many batches are timed alone.
      threads: that read.

    Returns:
      `loader_samples_per_second` (phrases, read and traced, by the reading threads alone), `step_seconds` (the fastest
      of two on one batch), `together_seconds` per step, `waiting_seconds` per step, and `waiting_share` of it.

    Raises:
      UserError: the data cannot be used, or has too few images for a batch.
    """
    policy = Policy.from_config(PRESETS[preset]())
    layout = policy.layout(phrases_per_image, crops)

    def collate(scenes: Sequence[Scene], seed: int) -> Batch:
        rows = [scene.examples for scene in scenes]
        return prompt_batch(rows, layout), target_batch(rows, layout)

    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            build_shapes(folder, train=EMBEDDED_SCENES, val=1, seed=0, level=2, progress=False)
        source = open_split(data or folder, "train", at_least=images_per_batch)

        def loader(seed: int) -> Any:
            return scene_batches(
                source, collate, images_per_batch=images_per_batch, phrases_per_image=phrases_per_image, seed=seed,
                threads=threads,
            )  # fmt: skip

        alone = loader(0)
        batch = next(alone)
        started = time.perf_counter()
        for _ in range(steps):
            next(alone)
        reading = time.perf_counter() - started
        alone.close()
        step = _Step(policy)
        step_seconds = fastest(lambda: step(batch), 2).wall
        waiting, total = _together(step, loader(1), steps)
    return {
        "preset": preset, "device": jax.devices()[0].device_kind,
        "data": "embedded scenes" if data is None else str(data),
        "images_per_batch": images_per_batch, "phrases_per_image": phrases_per_image, "threads": threads,
        "loader_samples_per_second": steps * images_per_batch * phrases_per_image / reading,
        "step_seconds": step_seconds, "together_seconds": total / steps, "waiting_seconds": waiting / steps,
        "waiting_share": waiting / total,
    }  # fmt: skip


class _Step:
    """The real gradient step of supervised learning, waiting for its result."""

    def __init__(self, policy: Policy):
        optimizer = make_optimizer(OptimizerConfig(), 1_000)
        self._state = init_state({"policy": policy.init(0)}, optimizer)
        self._update = make_sft_step(
            policy.model, policy.tables, optimizer, tokens=policy.config.paths.max_new_tokens, box_weight=1.0,
            box_distance_weight=8.0, path_distance_weight=8.0, heat_weight=1.0, words_weight=1.0, average_decay=0.998,
        )  # fmt: skip

    def __call__(self, batch: Batch) -> None:
        self._state, sums = self._update(self._state, *batch)
        jax.block_until_ready(sums)


def _together(step: _Step, batches: Any, steps: int) -> tuple[float, float]:
    """Seconds spent waiting for batches, and all seconds, of a run."""
    for _ in range(WARM_UP):
        step(next(batches))
    waiting, started = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - asked
        step(batch)
    total = time.perf_counter() - started
    batches.close()
    return waiting, total
