"""Stored rollouts → raw IoU, and the reward of every shape."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moonseg_jax.rewards import RewardSpec
from moonseg_jax.rewards.reward import reward_of
from moonseg_jax.rollout.score import Completions, judge
from moonseg_jax.rollout.stored import StoredRollouts
from moonseg_jax.types import EdgeBatch


def rewards_of(
    stored: StoredRollouts, shapes: Mapping[str, RewardSpec], step: int | None = None
) -> tuple[Float[np.ndarray, "Q G"], dict[str, Float[np.ndarray, "Q G"]]]:
    """Scores rollouts under several shapes, as training would; every term is computed once.

    Args:
      stored: Q groups of G completions.
      shapes: what to score them under, by name.
      step: where schedules stand; None for the step at which each group was sampled.

    Returns:
      Raw IoU, and the shaped rewards by name.
    """
    group = stored.group
    steps = stored.steps if step is None else np.full(len(stored), step, np.int32)

    @jax.jit
    def judge_all(
        completions: Completions, steps: Int[Array, " N"]
    ) -> tuple[Float[Array, " N"], dict[str, Float[Array, " N"]]]:
        values = judge([one for spec in shapes.values() for one in spec.terms], completions)

        def under(spec: RewardSpec) -> Float[Array, " N"]:
            return jax.vmap(lambda row, step: reward_of(spec, row, step))(values, steps)

        return values.iou, {name: under(spec) for name, spec in shapes.items()}

    iou, rewards = jax.device_get(judge_all(_completions(stored), np.repeat(steps, group)))
    # In the order of the shapes: compiled functions give dicts back sorted.
    return iou.reshape(-1, group), {name: rewards[name].reshape(-1, group) for name in shapes}


def edges_of(stored: StoredRollouts) -> EdgeBatch:
    """The edges of all N = Q*G completions."""

    def rows(values: np.ndarray) -> Array:
        return jnp.asarray(values.reshape(-1, *values.shape[2:]))

    return EdgeBatch(points=rows(stored.points), valid=rows(stored.valid), subpath=rows(stored.subpath))


def _completions(stored: StoredRollouts) -> Completions:
    return Completions(
        truth=jnp.repeat(jnp.asarray(stored.truth), stored.group, axis=0),
        box=jnp.asarray(stored.box.reshape(-1, 4)),
        length=jnp.asarray(stored.lengths.reshape(-1)),
        reference_length=jnp.repeat(jnp.asarray(stored.reference_lengths), stored.group),
        finish=jnp.asarray(stored.finish.reshape(-1)),
        edges=edges_of(stored),
    )
