"""The share of drawing and scoring in a batch of rollouts."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from moonseg_jax.bench.rollout.workload import Workload
from moonseg_jax.bench.timing import fastest
from moonseg_jax.rewards.shapes import shape
from moonseg_jax.rollout.groups import make_rollout
from moonseg_jax.rollout.score import read_paths, score
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.types import Rollouts, Scored


def scoring_share(work: Workload, sampling: Sampling, repeats: int) -> dict[str, float]:
    """Seconds of a whole batch from prompts to rewards, and of drawing and scoring alone."""
    policy = work.policy
    reward = shape("iou")
    whole = make_rollout(policy, sampling, reward=reward, seed=0)
    reference = jnp.full(work.batch.valid.shape, policy.config.paths.max_new_tokens)
    inputs = jax.device_put((work.params, work.batch, reference, 0))
    total = fastest(lambda: jax.block_until_ready(whole(*inputs)), repeats)
    rollouts = total.result[0]
    truth = jnp.asarray(work.batch.ground_truth).reshape(-1, *work.batch.ground_truth.shape[2:])

    @jax.jit
    def judge(rollouts: Rollouts) -> Scored:
        drawn = read_paths(policy.config, policy.tables, rollouts)
        return score(rollouts, drawn, truth, reference.reshape(-1), reward, 0)

    judged = fastest(lambda: jax.block_until_ready(judge(rollouts)), repeats)
    return {
        "seconds": round(total.wall, 3), "drawing_and_scoring_seconds": round(judged.wall, 4),
        "share": round(judged.wall / total.wall, 4),
    }  # fmt: skip
