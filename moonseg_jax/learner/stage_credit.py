"""Advantages per token: returns-to-go, compared between samples of a prompt at the same stage of their paths.

A stage is the number of subpaths closed before a token. It is known before the token is drawn, and the baseline is
made of other samples alone, so that the policy gradient stays unbiased (Williams 1992; Sutton et al. 2000).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.learner.advantages import Baseline, group_advantages


def returns_to_go(token_reward: Float[Array, "*samples T"]) -> Float[Array, "*samples T"]:
    """Sum of the rewards of each token and all later ones."""
    return jax.lax.cumsum(token_reward, axis=token_reward.ndim - 1, reverse=True)


def stage_advantages(
    returns: Float[Array, "Q G T"],
    stage: Int[Array, "Q G T"],
    lengths: Int[Array, "Q G"],
    counted: Bool[Array, "Q G"],
    *,
    baseline: Baseline,
) -> Float[Array, "Q G T"]:
    """Returns less those of the prompt's other samples at the same stage; what stands past the length is undefined.

    Args:
      returns: return-to-go of every token of G samples for each of Q prompts, the same within a stage.
      stage: of every token, from 0, never falling and never by more than 1 at a time.
      lengths: tokens of each completion.
      counted: which samples take part, in baselines too; the others get 0.
      baseline: `leave-one-out` is the mean over the others that reached the stage, 0 where none did; `none` is 0.

    Raises:
      ValueError: shapes differ or have other ranks; `group-mean`, which holds the sample's own return: over as many
        samples as reached the stage by chance, that shrinks each stage's gradient by another factor.
    """
    if returns.ndim != 3 or returns.shape != stage.shape or {lengths.shape, counted.shape} != {returns.shape[:2]}:
        raise ValueError(
            f"returns {returns.shape} and stage {stage.shape} must be [prompts, samples, tokens], lengths "
            f"{lengths.shape} and counted {counted.shape} [prompts, samples]"
        )
    if baseline == "group-mean":
        raise ValueError("baseline group-mean cannot compare stages: use leave-one-out or none")
    prompts, group, tokens = returns.shape
    within = jnp.arange(tokens) < lengths[..., None]
    is_first = within & jnp.diff(stage, axis=2, prepend=-1).astype(bool)
    # Written once per stage: sums of writes to one place have no order on some accelerators.
    place = jnp.where(is_first, stage, tokens).reshape(-1, tokens)
    of_stage = jax.vmap(lambda at, value: jnp.zeros(tokens).at[at].set(value, mode="drop"))(
        place, returns.reshape(-1, tokens)
    ).reshape(returns.shape)
    furthest = jnp.max(jnp.where(within, stage, -1), axis=2, keepdims=True)
    takes_part = (jnp.arange(tokens) <= furthest) & counted[..., None]

    def by_stage(values: Array) -> Array:
        return jnp.swapaxes(values, 1, 2).reshape(prompts * tokens, group)

    compared = group_advantages(by_stage(of_stage), by_stage(takes_part), baseline=baseline, scale="none")
    centred = jnp.swapaxes(compared.reshape(prompts, tokens, group), 1, 2)
    alone = takes_part & (jnp.sum(takes_part, axis=1, keepdims=True) == 1)
    return jnp.take_along_axis(jnp.where(alone, of_stage, centred), stage, axis=2)
