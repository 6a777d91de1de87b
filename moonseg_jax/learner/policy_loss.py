"""The one policy loss: likelihood ratios, clipping, staleness, KL to a reference and entropy, as sums and counts.

What sums are divided by, and why micro-batches add up to the whole batch, stands in `token_sums`. Advantages come
from outside and are computed before a batch is split.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float

from moonseg_jax.learner.token_sums import (
    Aggregation,
    WeightSums,
    aggregated,
    over_tokens,
    sequence_mean,
    weight_sums,
)
from moonseg_jax.types import SumAndCount

Ratio = Literal["token", "sequence", "none"]
KlEstimator = Literal["k1", "k3"]


class PolicyLoss(NamedTuple):
    """Of one batch or micro-batch; parts add up leaf by leaf. All but `loss` and `surrogate` are sums over tokens.

    `reference_kl` (as the plain estimate) and `entropy` carry gradients, for a caller who weights their means per
    token instead of aggregating them with the surrogate.
    """

    loss: SumAndCount
    """What is minimised: surrogate, weighted KL and weighted entropy, aggregated."""
    surrogate: SumAndCount
    """The part of the loss that the advantages drive."""
    clipped: SumAndCount
    """Tokens whose ratio lies outside the clip interval."""
    capped: SumAndCount | None
    """Tokens whose correction for staleness met its cap; None without correction."""
    mismatch_kl: SumAndCount
    """k3 estimate of KL(sampler || current policy), in nats."""
    importance: WeightSums
    """Of current policy against sampler, token by token, neither clipped nor capped."""
    reference_kl: SumAndCount | None
    """Estimate of KL(current policy || reference), in nats; None without reference."""
    entropy: SumAndCount | None
    """In nats; None where not given."""


def policy_loss(
    log_probs: Float[Array, "N T"],
    old_log_probs: Float[Array, "N T"],
    advantage: Float[Array, " N"] | Float[Array, "N T"],
    learned: Bool[Array, "N T"],
    *,
    ratio: Ratio,
    clip_low: float | None,
    clip_high: float | None,
    aggregation: Aggregation,
    fixed_length: float = 1.0,
    behaviour_log_probs: Float[Array, "N T"] | None = None,
    correction_cap: float | None = None,
    reference_log_probs: Float[Array, "N T"] | None = None,
    kl_estimator: KlEstimator = "k3",
    kl_weight: float = 0.0,
    entropy: Float[Array, "N T"] | None = None,
    entropy_weight: float = 0.0,
    sampled: Bool[Array, " N"] | None = None,
) -> PolicyLoss:
    """Surrogate loss of a policy gradient, with the figures that tell how far to trust it.

    Per token the loss is -w min(r A, clip(r, 1 - low, 1 + high) A) + β KL - α H (Schulman et al. 2017, eq. 7, for the
    clipped part). Gradients flow through `log_probs` and `entropy` alone. What stands where nothing is learned
    changes nothing and gets no gradient, NaN and infinity included; where something is learned they are passed on.

    Args:
      log_probs: of the sampled tokens under the current policy.
      old_log_probs: under the policy that ratios are taken against.
      advantage: per sequence, or per token for finer credit.
      learned: which tokens count.
      ratio: `token` is r = π / π_old of each token (Shao et al. 2024, DeepSeekMath, eq. 3); `sequence` the geometric
        mean of these over the sequence's learned tokens (Zheng et al. 2025, GSPO, eq. 5 and 7), with gradients token
        by token so that token advantages keep their meaning (GSPO-token; the same where they are all equal); `none`
        takes log π in the place of r, without clipping: the score function (Williams 1992), right for samples of the
        current policy, or under a correction.
      clip_low: ratios are clipped to at least 1 - clip_low; None for no bound.
      clip_high: and to at most 1 + clip_high; None for no bound.
      aggregation: see `token_sums`.
      fixed_length: the constant of `fixed-length`; 1 sums a completion's tokens, the token budget gives Dr. GRPO (Liu
        et al. 2025, §3).
      behaviour_log_probs: under the policy that sampled, where that is staler than the old one; an injected
        completion was "sampled" with certainty and has 0. None: the old policy sampled.
      correction_cap: C in w = min(π_old / π_behaviour, C), truncated importance sampling (Yao et al. 2025, "Your
        efficient RL framework secretly brings you off-policy RL training"), per token; where `ratio` is `sequence`,
        of the geometric mean over the sequence; where it is `none`, with π in the place of π_old. None: w = 1.
      reference_log_probs: under the policy to stay close to.
      kl_estimator: of KL(π || π_ref), with x = log π_ref - log π: `k3` is exp(x) - 1 - x (Shao et al. 2024, eq. 4);
        `k1` is -x. The plain gradient of k1 is 0 in expectation, so it enters the loss as w r k1 with k1 held fixed,
        r per token: its gradient estimates that of the KL.
      kl_weight: β.
      entropy: of the distributions the tokens were drawn from.
      entropy_weight: α.
      sampled: False for sequences that were given and not sampled. They have a surrogate and nothing else: estimates
        of divergences and entropies are for samples, so no figure counts them and neither β nor α reaches them.
        None: all were sampled.

    Raises:
      ValueError: shapes differ, or a weight or cap is set without the array it applies to.
    """
    _check_shapes(log_probs, old_log_probs, advantage, learned, behaviour_log_probs, reference_log_probs, entropy)
    _check_present(correction_cap is not None, behaviour_log_probs, "correction_cap needs behaviour_log_probs")
    _check_present(kl_weight != 0.0, reference_log_probs, "kl_weight needs reference_log_probs")
    _check_present(entropy_weight != 0.0, entropy, "entropy_weight needs entropy")

    # Replaced before any arithmetic: a NaN that is only masked afterwards still spoils gradients.
    now = jnp.where(learned, log_probs, 0.0)
    old = stop_gradient(now if ratio == "none" else jnp.where(learned, old_log_probs, 0.0))
    advantage = stop_gradient(jnp.where(learned, advantage[:, None] if advantage.ndim == 1 else advantage, 0.0))
    behaviour = old_log_probs if behaviour_log_probs is None else behaviour_log_probs
    sampler = stop_gradient(jnp.where(learned, behaviour, 0.0))

    measured = learned if sampled is None else learned & sampled[:, None]

    gain, clipped = _gain(now, old, advantage, learned, ratio, clip_low, clip_high)
    weight, capped = jnp.ones(()), None
    if correction_cap is not None:
        gap = sequence_mean(old - sampler, learned) if ratio == "sequence" else old - sampler
        weight = jnp.minimum(jnp.exp(gap), correction_cap)
        capped = over_tokens(jnp.exp(gap) > correction_cap, measured)
    surrogate = per_token = -weight * gain
    reference_kl = None
    if reference_log_probs is not None:
        x = stop_gradient(jnp.where(learned, reference_log_probs, 0.0)) - now
        estimate = k3(x) if kl_estimator == "k3" else -x
        reference_kl = over_tokens(estimate, measured)
        if kl_weight:
            scored = estimate if kl_estimator == "k3" else weight * jnp.exp(now - old) * stop_gradient(estimate)
            per_token = per_token + kl_weight * (scored if sampled is None else jnp.where(measured, scored, 0.0))
    if entropy is not None and entropy_weight:
        per_token = per_token - entropy_weight * (entropy if sampled is None else jnp.where(measured, entropy, 0.0))

    drift = stop_gradient(now) - sampler
    return PolicyLoss(
        loss=aggregated(per_token, learned, aggregation, fixed_length),
        surrogate=aggregated(surrogate, learned, aggregation, fixed_length),
        clipped=over_tokens(clipped, measured),
        capped=capped,
        mismatch_kl=over_tokens(k3(drift), measured),
        importance=weight_sums(jnp.exp(drift), measured),
        reference_kl=reference_kl,
        entropy=None if entropy is None else over_tokens(entropy, measured),
    )


def k3(x: Float[Array, "*tokens"]) -> Float[Array, "*tokens"]:
    """exp(x) - 1 - x of x = log p - log q at samples of q: estimates KL(q || p) and is never negative.

    Schulman 2020, "Approximating KL divergence".
    """
    return jnp.expm1(x) - x


def _gain(
    now: Float[Array, "N T"],
    old: Float[Array, "N T"],
    advantage: Float[Array, "N T"],
    learned: Bool[Array, "N T"],
    ratio: Ratio,
    clip_low: float | None,
    clip_high: float | None,
) -> tuple[Float[Array, "N T"], Bool[Array, "N T"]]:
    """What is maximised per token, and where the ratio lies outside the clip interval."""
    if ratio == "none":
        return advantage * now, jnp.zeros_like(learned)
    ratios = jnp.exp(now - old)
    if ratio == "sequence":
        ratios = stop_gradient(jnp.exp(sequence_mean(now - old, learned))) * jnp.exp(now - stop_gradient(now))
    lowest = None if clip_low is None else 1.0 - clip_low
    highest = None if clip_high is None else 1.0 + clip_high
    clipped = jnp.clip(ratios, lowest, highest)
    return jnp.minimum(ratios * advantage, clipped * advantage), clipped != ratios


def _check_shapes(log_probs: Array, old: Array, advantage: Array, learned: Array, *optional: Array | None) -> None:
    shape = log_probs.shape
    if len(shape) != 2 or advantage.shape not in (shape, shape[:1]):
        raise ValueError(
            f"log_probs must be [sequences, tokens] and advantage per sequence or per token, not {shape} and "
            f"{advantage.shape}"
        )
    for array in (old, learned, *optional):
        if array is not None and array.shape != shape:
            raise ValueError(f"all arrays per token must have the shape of log_probs, {shape}; one has {array.shape}")


def _check_present(wanted: bool, array: Array | None, needs: str) -> None:
    if wanted and array is None:
        raise ValueError(needs)
