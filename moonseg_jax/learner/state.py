"""What a learner carries from step to step, and one gradient step of it."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class LearnerState:
    """Everything one stage's learner needs to go on."""

    step: Int[Array, ""]
    params: Any
    averaged: Any
    """Exponential moving average of the parameters, for evaluation."""
    optimizer: Any


def init_state(params: Any, optimizer: optax.GradientTransformation) -> LearnerState:
    """State before the first step; the average starts at the parameters."""
    return LearnerState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        averaged=jax.tree.map(jnp.copy, params),
        optimizer=optimizer.init(params),
    )


def apply_gradients(
    state: LearnerState, gradients: Any, optimizer: optax.GradientTransformation, average_decay: float
) -> tuple[LearnerState, Float[Array, ""]]:
    """One optimizer step; returns the new state and the gradients' global norm.

    The average's decay grows from 0 to `average_decay` as (1 + t) / (10 + t), so early steps are forgotten.
    """
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(average_decay, (1.0 + state.step) / (10.0 + state.step))
    averaged = jax.tree.map(lambda old, fresh: old * decay + fresh * (1 - decay), state.averaged, params)
    return (
        LearnerState(step=state.step + 1, params=params, averaged=averaged, optimizer=optimizer_state),
        optax.global_norm(gradients),
    )
