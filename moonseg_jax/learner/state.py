"""What a learner carries from step to step, and one gradient step of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from moonseg_jax.partition import split_parameters


@flax.struct.dataclass
class LearnerState:
    """Everything one stage's learner needs to go on."""

    step: Int[Array, ""]
    """Gradient steps tried, skipped ones included."""
    params: Any
    averaged: Any
    """Exponential moving average of the parameters, for evaluation."""
    optimizer: Any
    skipped_steps: Int[Array, ""]
    """Steps not taken because loss or gradient was not finite."""
    skipped_in_row: Int[Array, ""]
    """Of these, the ones since the last step taken."""
    frozen: Any = None
    """Parameters that no gradient reaches, see `trainable`."""


def init_state(params: Any, optimizer: optax.GradientTransformation, frozen: Any = None) -> LearnerState:
    """State before the first step; the average starts at the parameters."""
    return LearnerState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        averaged=jax.tree.map(jnp.copy, params),
        optimizer=optimizer.init(params),
        skipped_steps=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
        frozen=frozen,
    )


def apply_gradients(
    state: LearnerState,
    loss: Float[Array, ""],
    gradients: Any,
    optimizer: optax.GradientTransformation,
    average_decay: float,
) -> tuple[LearnerState, Float[Array, ""]]:
    """One optimizer step; returns the new state and the gradients' global norm.

    Where the loss or the norm is NaN or infinite, the step is skipped: nothing but the counters changes.

    The average's decay grows from 0 to `average_decay` as (1 + t) / (10 + t), so early steps are forgotten.
    """
    gradients = split_parameters(gradients)
    norm = optax.global_norm(gradients)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(average_decay, (1.0 + state.step) / (10.0 + state.step))
    averaged = jax.tree.map(lambda old, fresh: old * decay + fresh * (1 - decay), state.averaged, params)
    tried = dataclasses.replace(state, step=state.step + 1)
    taken = dataclasses.replace(
        tried, params=params, averaged=averaged, optimizer=optimizer_state,
        skipped_in_row=jnp.zeros_like(state.skipped_in_row),
    )  # fmt: skip
    skipped = dataclasses.replace(tried, skipped_steps=state.skipped_steps + 1, skipped_in_row=state.skipped_in_row + 1)
    is_sound = jnp.isfinite(loss) & jnp.isfinite(norm)
    chosen = jax.tree.map(lambda new, old: jnp.where(is_sound, new, old), taken, skipped)
    return split_parameters(chosen), norm
