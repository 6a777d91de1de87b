"""Encoding, prefill and scoring timed as programs of their own: what they take of a rollout, about."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from moonseg_jax.axes import ENGINES
from moonseg_jax.engines import over_engines
from moonseg_jax.policy import Policy
from moonseg_jax.rewards import RewardSpec
from moonseg_jax.rollout.groups import draw_and_score
from moonseg_jax.rollout.prefill import prefill
from moonseg_jax.types import PromptBatch, Rollouts

REPEATS = 3
"""Calls of each program; the fastest counts."""


def part_seconds(
    policy: Policy,
    reward: RewardSpec,
    params: Any,
    batch: PromptBatch,
    target_lengths: Int[Array, "I K"],
    rollouts: Rollouts,
    mesh: Mesh,
    token_credit: bool = False,
) -> dict[str, float]:
    """Seconds of `encode` (crops to image embeddings), `prefill` (image and prompts through the decoder, without
    `encode`) and `score` (reading, drawing and judging the paths) on one batch.

    Estimates: inside the rollout's own program the compiler may fuse them with what stands beside them. Nothing that
    training reads is changed.

    Args:
      policy: the model and its language.
      reward: what samples are paid for.
      params: the policy's parameters.
      batch: one batch, split over the mesh.
      target_lengths: tokens of its traced targets.
      rollouts: of that batch.
      mesh: over which images are split.
      token_credit: whether scoring places rewards on tokens too.
    """

    def encode(params: Any, batch: PromptBatch) -> Array:
        vision: Any = policy.model.apply(
            {"params": params}, batch.crops, batch.stitch_rows, batch.stitch_cols,
            method=lambda model, *image: model.vision(*image),
        )  # fmt: skip
        return _all_of(vision)

    def encode_and_prefill(params: Any, batch: PromptBatch) -> Array:
        return _all_of(prefill(policy.model, params, batch))

    def judge(batch: PromptBatch, lengths: Array, rollouts: Rollouts) -> Array:
        return _all_of(draw_and_score(policy, batch, lengths, rollouts, reward, 0, token_credit))

    rows = P(ENGINES)

    def seconds(part: Callable[..., Array], specs: tuple[P, ...], *inputs: Any) -> float:
        return _fastest(jax.jit(over_engines(part, mesh, specs, rows)), *inputs)

    encoded = seconds(encode, (P(), rows), params, batch)
    prefilled = seconds(encode_and_prefill, (P(), rows), params, batch)
    scored = seconds(judge, (rows, rows, rows), batch, target_lengths, dataclasses.replace(rollouts, experts=None))
    return {"encode": encoded, "prefill": max(prefilled - encoded, 0.0), "score": scored}


def _all_of(outputs: Any) -> Float[Array, "1"]:
    """One number that needs all of the outputs, so that none is compiled away and none has to be placed."""
    return sum((jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(outputs)), jnp.zeros(()))[None]


def _fastest(program: Callable[..., Array], *inputs: Any) -> float:
    jax.block_until_ready(program(*inputs))
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(program(*inputs))
        taken.append(time.perf_counter() - started)
    return min(taken)
