"""Optimizers: schedule, which parameters Muon takes, and the moving average of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import micro_params

from moonseg_jax.learner.optimizers import OptimizerConfig, make_optimizer, schedule
from moonseg_jax.learner.state import apply_gradients, init_state


def test_the_rate_warms_up_and_decays_to_its_fraction():
    rate = schedule(OptimizerConfig(warmup_steps=10, final_fraction=0.1), 2.0, 110)
    middle = (2.0 + 0.2) / 2
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(60), rate(110)], [0, 1, 2, middle, 0.2], atol=1e-6)


def test_short_runs_warm_up_for_at_most_half_of_their_steps():
    rate = schedule(OptimizerConfig(warmup_steps=100, final_fraction=0.0), 1.0, 8)
    np.testing.assert_allclose([rate(0), rate(2), rate(4), rate(8)], [0, 0.5, 1, 0], atol=1e-6)


def muon_takes(params) -> set[str]:
    """Parameters that Muon keeps a momentum for."""
    state = make_optimizer(OptimizerConfig(name="muon"), 10).init(params)
    momentum = state[1].inner_states["muon"].inner_state[0].mu
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(momentum)}


def test_muon_takes_hidden_matrices_and_adam_all_else():
    taken = muon_takes({"policy": jax.tree.map(jnp.asarray, micro_params())})
    for name in ("text/routed/moe/up", "text/dense/attn/qkv/kernel", "vision/blocks/fc1/kernel"):
        assert f"policy/{name}" in taken
    assert not [name for name in taken if "bias" in name or "scale" in name]
    for name in ("text/embedding", "text/head", "moe/router", "vision/position", "frequencies", "tau_"):
        assert not [one for one in taken if name in one], name


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_gradients_beyond_the_limit_do_not_matter(name):
    config = OptimizerConfig(name=name, warmup_steps=1, clip_norm=1.0)
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}
    gradients = {"w": jnp.full((3, 4), 0.2) * jnp.arange(1, 5), "b": jnp.full(4, -3.0)}

    def after_two_steps(scale):
        optimizer = make_optimizer(config, 10)
        state = init_state(params, optimizer)
        step = jax.jit(lambda state, gradients: apply_gradients(state, 0.0, gradients, optimizer, 0.9))
        for _ in range(2):
            state, norm = step(state, jax.tree.map(lambda g: g * scale, gradients))
        return state.params, norm

    (once, norm), (larger, larger_norm) = after_two_steps(1.0), after_two_steps(50.0)
    assert norm > 1.0
    np.testing.assert_allclose(larger_norm, 50 * norm, rtol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), once, larger)
    assert np.abs(once["w"] - 1.0).max() > 1e-4


def test_the_average_forgets_early_steps():
    optimizer = optax.sgd(1.0)
    state = init_state({"w": jnp.array(0.0)}, optimizer)
    averages = []
    for _ in range(3):
        state, _ = apply_gradients(state, 0.0, {"w": jnp.array(-11.0)}, optimizer, average_decay=0.15)
        averages.append(float(state.averaged["w"]))
    # Decays 1/10, 2/11 cut to .15, 3/12 cut to .15; parameters 11, 22, 33.
    first = 0.1 * 0.0 + 0.9 * 11.0
    second = 0.15 * first + 0.85 * 22.0
    np.testing.assert_allclose(averages, [first, second, 0.15 * second + 0.85 * 33.0], rtol=1e-6)
    assert int(state.step) == 3
