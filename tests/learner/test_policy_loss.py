"""Advantages and the clipped loss against numbers worked by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.learner.policy import advantages, clipped_policy_loss, flat_groups

policy_loss = jax.jit(clipped_policy_loss)


def test_leave_one_out_takes_the_mean_of_the_others():
    reward = jnp.array([[1.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.2, 0.8]])
    expected = [[2 / 3, -2 / 3, 0.0, 0.0], [-0.2, -0.2, -0.2, 0.6]]
    np.testing.assert_allclose(advantages(reward, "leave-one-out"), expected, atol=1e-6)


def test_group_mean_includes_the_sample_itself():
    reward = jnp.array([[1.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.2, 0.8]])
    expected = [[0.5, -0.5, 0.0, 0.0], [-0.15, -0.15, -0.15, 0.45]]
    np.testing.assert_allclose(advantages(reward, "group-mean"), expected, atol=1e-6)


def test_only_groups_of_equal_iou_are_flat():
    iou = jnp.array([[0.3, 0.3, 0.3], [0.3, 0.3, 0.301], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(flat_groups(iou), [True, False, True, False])


@functools.partial(jax.value_and_grad, has_aux=True)
def loss_of_one_token(log_ratio, advantage):
    one = jnp.ones((1, 1))
    sums = policy_loss(log_ratio * one, 0.0 * one, jnp.array([advantage]), one > 0, 0.2, 0.3)
    return sums.loss[0], sums


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.5, 1.0, 1.3, 0.0),
        (1.5, -1.0, -1.5, -1.5),
        (0.5, 1.0, 0.5, 0.5),
        (0.5, -1.0, -0.8, 0.0),
        (1.25, 1.0, 1.25, 1.25),
    ],
)
def test_clipping_stops_only_steps_that_went_far_enough(ratio, advantage, gain, slope):
    (loss, sums), gradient = loss_of_one_token(np.log(ratio), advantage)
    np.testing.assert_allclose([loss, gradient], [-gain, -slope], atol=1e-6)
    outside = not 0.8 <= ratio <= 1.3
    assert sums.clipped[0] == float(outside)
    np.testing.assert_allclose(sums.mismatch[0], ratio - 1 - np.log(ratio), atol=1e-6)


def batch_of(sequences: int, tokens: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    old = -rng.uniform(0.1, 3.0, (sequences, tokens)).astype(np.float32)
    new = old + 0.4 * rng.normal(size=old.shape).astype(np.float32)
    learned = np.arange(tokens) < rng.integers(1, tokens + 1, sequences)[:, None]
    learned[2] = False
    return new, old, rng.normal(size=sequences).astype(np.float32), learned


def test_sums_are_over_tokens_and_the_count_over_sequences():
    new, old, advantage, learned = batch_of(6, 5)
    sums = policy_loss(*map(jnp.asarray, (new, old, advantage, learned)), 0.2, 0.2)
    gain = 0.0
    for n, t in zip(*np.nonzero(learned)):
        ratio = np.exp(new[n, t] - old[n, t])
        gain += min(ratio * advantage[n], min(max(ratio, 0.8), 1.2) * advantage[n])
    np.testing.assert_allclose(sums.loss, (-gain, 5), rtol=1e-5)
    assert sums.clipped[1] == sums.mismatch[1] == learned.sum()


def test_a_batch_is_the_sum_of_its_halves():
    rows = batch_of(8, 5)
    whole, first, second = (
        policy_loss(*(jnp.asarray(part[where]) for part in rows), 0.2, 0.2)
        for where in (slice(None), slice(4), slice(4, None))
    )
    for total, one, other in zip(whole, first, second):
        np.testing.assert_allclose(total, np.add(one, other), rtol=1e-5)


def test_tokens_that_do_not_count_spoil_no_gradient():
    new, old, advantage, learned = batch_of(4, 3)
    new[~learned] = -np.inf
    gradient = jax.grad(lambda log_probs: policy_loss(log_probs, old, advantage, learned, 0.2, 0.2).loss[0])(
        jnp.asarray(new)
    )
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~learned], 0.0)
