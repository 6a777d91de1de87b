"""One compiled program from prompts to scored groups of rollouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from moonseg_jax.policy import Policy
from moonseg_jax.rollout.sample import sample, sample_keys
from moonseg_jax.rollout.score import Drawn, read_paths, score
from moonseg_jax.types import PromptBatch, Rollouts, Scored, SumAndCount

GroupRollout = Callable[
    [Any, PromptBatch, Int[Array, ""] | int], tuple[Rollouts, Scored, Drawn, dict[str, SumAndCount]]
]


def make_rollout(policy: Policy, *, group: int, temperature: float, length_penalty: float, seed: int) -> GroupRollout:
    """Compiles sampling, drawing and scoring.

    Args:
      policy: the model and its language.
      group: samples per prompt.
      temperature: of sampling.
      length_penalty: see `rewards`.
      seed: of the run; noise also depends on the policy version, the prompt and the sample index.

    Returns:
      Function (parameters, batch, policy version) → rollouts, scores, what they draw, and figures as sums and
      counts over the batch's valid prompts.
    """

    @jax.jit
    def rollout(
        params: Any, batch: PromptBatch, version: Int[Array, ""]
    ) -> tuple[Rollouts, Scored, Drawn, dict[str, SumAndCount]]:
        keys = sample_keys(jax.random.key(seed), version, batch.example_ids, group)
        rollouts = sample(policy.model, policy.grammar, params, batch, keys, group, temperature)
        drawn = read_paths(policy.config, policy.tables, rollouts)
        truth = batch.ground_truth.reshape(-1, *batch.ground_truth.shape[2:])
        scored = score(policy.config, rollouts, drawn, truth, length_penalty)
        valid = jnp.repeat(batch.valid.reshape(-1), group)
        count = jnp.sum(valid).astype(jnp.float32)

        def over_valid(values: Array) -> SumAndCount:
            return jnp.sum(jnp.where(valid, values, 0.0)), count

        sums = {
            "reward": over_valid(scored.reward),
            "sampled_iou": over_valid(scored.iou),
            "tokens": over_valid(rollouts.lengths.astype(jnp.float32)),
        }
        return rollouts, scored, drawn, sums

    return rollout
