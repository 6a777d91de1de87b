"""Advantages: what a sample's reward is worth next to its group or its batch.

Everything here looks across samples. Compute advantages of the whole batch before it is split into micro-batches:
a baseline needs whole groups, and the batch's standard deviation needs all of them. On a mesh the sums run over
all devices, because they are sums of one global array.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Baseline = Literal["leave-one-out", "group-mean", "none"]
Scale = Literal["none", "group-std", "batch-std"]

FLAT = 1e-6
"""Values that lie closer together than this are equal: there is nothing to learn from their order."""


def flat_groups(iou: Float[Array, "Q G"], counted: Bool[Array, "Q G"]) -> Bool[Array, " Q"]:
    """Groups whose counted samples all have the same raw IoU, or that have fewer than two of them.

    Judged on raw IoU, never on the shaped reward: a term of the reward must not decide what is learned from.

    Args:
      iou: raw mask IoU of G samples for each of Q prompts.
      counted: False for padding rows and for samples that take no part.
    """
    return _spread(iou, counted, axis=1)[:, 0] < FLAT


def group_advantages(
    reward: Float[Array, "Q G"], counted: Bool[Array, "Q G"], *, baseline: Baseline, scale: Scale
) -> Float[Array, "Q G"]:
    """Reward less a baseline, over a scale; 0 for samples that do not count.

    A sample with nothing beside it to be compared with gets 0 under both group baselines. Rewards of samples that do
    not count may be anything, NaN included; a NaN that counts is passed on.

    Args:
      reward: shaped reward of G samples for each of Q prompts.
      counted: which samples take part, in baselines and scales too.
      baseline: `group-mean` is the mean of the sample's group (Shao et al. 2024, DeepSeekMath, §4.1);
        `leave-one-out` the mean of the group's other samples, which leaves the policy gradient unbiased (Kool et al.
        2019; Ahmadian et al. 2024); it is n / (n - 1) times the former for n counted samples. `none` is 0
        (Williams 1992).
      scale: `group-std` divides by the standard deviation of the group's rewards (Shao et al. 2024, §4.1);
        `batch-std` by that of the unscaled advantages of the batch, one scale for all groups. Standard deviations are
        of the population (divided by n); where rewards are equal, the advantage is 0.

    Raises:
      ValueError: `reward` and `counted` differ in shape or are not of rank 2.
    """
    if reward.ndim != 2 or reward.shape != counted.shape:
        raise ValueError(f"reward {reward.shape} and counted {counted.shape} must both be [prompts, samples]")
    reward = jnp.where(counted, reward, 0.0)
    centred = reward
    if baseline != "none":
        number = jnp.sum(counted, axis=1, keepdims=True).astype(reward.dtype)
        centred = reward - jnp.sum(reward, axis=1, keepdims=True) / jnp.maximum(number, 1.0)
        if baseline == "leave-one-out":
            centred = centred * number / jnp.maximum(number - 1.0, 1.0)
        # Rounding errors of equal rewards are no advantage, and a scale would blow them up. Asked this way round, a
        # NaN is not flat and reaches the loss, where it is noticed.
        centred = jnp.where(counted & ~(_spread(reward, counted, axis=1) < FLAT), centred, 0.0)
    if scale == "group-std":
        return _scaled(centred, reward, counted, axis=1)
    if scale == "batch-std":
        return _scaled(centred, centred, counted, axis=None)
    return centred


def injected_advantages(
    reward: Float[Array, "Q G"],
    counted: Bool[Array, "Q G"],
    compared: Bool[Array, "Q G"],
    injected: Bool[Array, "Q G"],
    *,
    baseline: Baseline,
    scale: Scale,
) -> Float[Array, "Q G"]:
    """What a given completion is worth next to the policy's own samples of the prompt; 0 for all others.

    Its baseline is the mean of all samples, and it stands in no sample's baseline: whether it is there depends on how
    good the samples are, and a baseline that depends on its own sample biases the gradient. Nor would a mean that it
    raises say anything about the samples: in a group that missed alike, each would be held worse than average. (Yan et
    al. 2025, LUFFY, §3.2, take one mean over both.)

    Its scale has to include it and all samples it is compared with, because samples that missed alike deviate by
    nothing: those of flat groups enter the batch's deviation with advantage 0. Samples keep the scale that they have
    without it.

    Args:
      reward: of G completions for each of Q prompts.
      counted: samples that are learned from.
      compared: samples to compare with, those of flat groups included.
      injected: the given ones, at most one per prompt.
      baseline: see `group_advantages`.
      scale: see there.
    """
    centred = jnp.where(injected, reward, 0.0)
    if baseline != "none":
        number = jnp.maximum(jnp.sum(compared, axis=1, keepdims=True), 1).astype(reward.dtype)
        mean = jnp.sum(jnp.where(compared, reward, 0.0), axis=1, keepdims=True) / number
        centred = jnp.where(injected, reward - mean, 0.0)
    if scale == "group-std":
        return _scaled(centred, reward, compared | injected, axis=1)
    if scale == "batch-std":
        own = group_advantages(reward, counted, baseline=baseline, scale="none")
        return _scaled(centred, own + centred, compared | injected, axis=None)
    return centred


def _scaled(
    centred: Float[Array, "Q G"], values: Float[Array, "Q G"], counted: Bool[Array, "Q G"], axis: int | None
) -> Float[Array, "Q G"]:
    """`centred` over the standard deviation of the counted `values` along `axis`."""
    number = jnp.maximum(jnp.sum(counted, axis=axis, keepdims=True), 1).astype(values.dtype)
    mean = jnp.sum(jnp.where(counted, values, 0.0), axis=axis, keepdims=True) / number
    squares = jnp.where(counted, (values - mean) ** 2, 0.0)
    deviation = jnp.sqrt(jnp.sum(squares, axis=axis, keepdims=True) / number)
    flat = _spread(values, counted, axis) < FLAT
    return jnp.where(flat, 0.0, centred / jnp.where(flat, 1.0, deviation))


def _spread(values: Float[Array, "Q G"], counted: Bool[Array, "Q G"], axis: int | None) -> Float[Array, "..."]:
    """Largest less smallest counted value, dimensions kept; below 0 where none counts."""
    largest = jnp.max(values, axis=axis, keepdims=True, where=counted, initial=-jnp.inf)
    return largest - jnp.min(values, axis=axis, keepdims=True, where=counted, initial=jnp.inf)
