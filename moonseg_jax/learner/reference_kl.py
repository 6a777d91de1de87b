"""How far the policy has gone from where it started, estimated on its own samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from moonseg_jax.learner.policy_loss import k3
from moonseg_jax.learner.token_sums import over_tokens
from moonseg_jax.types import PromptBatch, Rollouts, SumAndCount


def make_reference_kl(
    log_probs: Callable[[Any, PromptBatch, Rollouts], Float[Array, "N T"]],
) -> Callable[[Any, PromptBatch, Rollouts], SumAndCount]:
    """Function (reference parameters, batch, rollouts) → KL(sampler || reference) in nats, per sampled token.

    One forward pass of the reference, apart from the gradient step, which stays as it is.

    Args:
      log_probs: see `make_old_log_probs`.
    """
    reduce = jax.jit(reference_kl)

    def measure(reference: Any, batch: PromptBatch, rollouts: Rollouts) -> SumAndCount:
        return reduce(log_probs(reference, batch, rollouts), batch, rollouts)

    return measure


def reference_kl(reference: Float[Array, "N T"], batch: PromptBatch, rollouts: Rollouts) -> SumAndCount:
    """The estimate k3 (Shao et al. 2024, eq. 4) over all tokens of valid prompts, samples of flat groups included.

    Args:
      reference: log-probabilities of the sampled tokens under the reference policy.
      batch: I images with K prompts.
      rollouts: N = I*K*G samples with the log-probabilities they were drawn with.
    """
    valid = jnp.repeat(batch.valid.reshape(-1), reference.shape[0] // batch.valid.size)
    sampled = valid[:, None] & (jnp.arange(reference.shape[1]) < rollouts.lengths[:, None])
    return over_tokens(k3(jnp.where(sampled, reference - rollouts.log_probs, 0.0)), sampled)
