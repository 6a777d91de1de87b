"""One gradient step: a loss or gradient that is no number must not spoil what was learned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moonseg_jax.learner.state import apply_gradients, init_state

OPTIMIZER = optax.adam(0.1)


@jax.jit
def step(state, loss, gradient):
    return apply_gradients(state, loss, {"w": jnp.array([1.0, -2.0]) * gradient}, OPTIMIZER, 0.9)[0]


def start():
    return step(init_state({"w": jnp.array([1.0, 2.0])}, OPTIMIZER), 0.5, 1.0)


def counters(state):
    return int(state.step), int(state.skipped_steps), int(state.skipped_in_row)


@pytest.mark.parametrize(("loss", "gradient"), [(np.nan, 1.0), (-np.inf, 1.0), (0.5, np.nan), (0.5, np.inf)])
def test_a_loss_or_gradient_that_is_not_finite_changes_nothing_but_the_counters(loss, gradient):
    before = start()
    state = step(before, loss, gradient)
    for name in ("params", "averaged", "optimizer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(before, name))
    assert counters(state) == (2, 1, 1)


def test_rows_of_skipped_steps_end_with_a_step_that_is_taken():
    state, seen = start(), []
    for loss in (np.nan, np.inf, 0.5, np.nan):
        state = step(state, loss, 1.0)
        seen.append(counters(state))
    assert seen == [(2, 1, 1), (3, 2, 2), (4, 2, 0), (5, 3, 1)]


def test_learning_goes_on_where_it_was():
    skipped = step(start(), np.nan, np.nan)
    np.testing.assert_array_equal(step(skipped, 0.5, 1.0).params["w"], step(start(), 0.5, 1.0).params["w"])
    assert np.abs(step(skipped, 0.5, 1.0).params["w"] - skipped.params["w"]).min() > 0.05
