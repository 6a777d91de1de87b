"""The gap between the log-probabilities that sampling stores and those that the learner works out."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moonseg_jax.bench.rollout.workload import Workload
from moonseg_jax.learner.policy import rollout_statistics
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import sample_keys
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.types import PromptBatch


def log_prob_gap(work: Workload, sampling: Sampling) -> dict[str, dict[str, float]]:
    """Gaps in float32 and bfloat16, with the sampler's experts replayed and without.

    Returns:
      For every case: largest and mean absolute gap per token, share of tokens beyond 1e-5, and the mismatch KL
      (k3 estimate, nats per token).
    """
    cases = {}
    for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16)):
        for of_experts, gap in _gaps(work, sampling, dtype).items():
            cases[f"{name}, {of_experts}"] = {
                "largest": float(f"{np.abs(gap).max():.3g}"),
                "mean": float(f"{np.abs(gap).mean():.3g}"),
                "share_beyond_1e-5": float(f"{(np.abs(gap) > 1e-5).mean():.3g}"),
                "mismatch_kl": float(f"{(np.expm1(gap) - gap).mean():.3g}"),
            }
    return cases


def _gaps(work: Workload, sampling: Sampling, dtype: Any) -> dict[str, np.ndarray]:
    policy = work.policy
    model = policy.model.clone(dtype=dtype)

    @jax.jit
    def run(params: Any, batch: PromptBatch, budgets: Any) -> tuple[dict[str, Any], Any]:
        keys = sample_keys(jax.random.key(0), 0, batch.example_ids, sampling.group)
        rollouts, _ = sample(model, policy.grammar, params, batch, keys, sampling, budgets)
        gaps = {}
        for of_experts, experts in (("replayed experts", rollouts.experts), ("routed anew", None)):
            learned = dataclasses.replace(rollouts, experts=experts)
            found = rollout_statistics(model, policy.grammar, params, batch, learned, sampling.temperature)
            gaps[of_experts] = found.log_probs - rollouts.log_probs
        return gaps, jnp.arange(rollouts.token_ids.shape[1]) < rollouts.lengths[:, None]

    with jax.default_matmul_precision("highest"):
        gaps, within = jax.device_get(run(work.params, work.batch, work.budgets))
    return {of_experts: gap[within] for of_experts, gap in gaps.items()}
