"""Advantages against numbers worked by hand, NumPy, and what must not change them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import QUICK

from moonseg_jax.learner.advantages import flat_groups, group_advantages

REWARD = np.array([[1.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.2, 1.0]], np.float32)
ALL = np.ones(REWARD.shape, bool)
BASELINES, SCALES = ("leave-one-out", "group-mean", "none"), ("none", "group-std", "batch-std")


@functools.partial(jax.jit, static_argnames=("baseline", "scale"), compiler_options=QUICK)
def advantages(reward, counted, baseline, scale="none"):
    return group_advantages(reward, counted, baseline=baseline, scale=scale)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("none", REWARD),
        ("group-mean", [[0.5, -0.5, 0.0, 0.0], [-0.2, -0.2, -0.2, 0.6]]),
        ("leave-one-out", [[2 / 3, -2 / 3, 0.0, 0.0], [-4 / 15, -4 / 15, -4 / 15, 0.8]]),
    ],
)
def test_a_reward_is_compared_with_its_baseline(baseline, expected):
    np.testing.assert_allclose(advantages(REWARD, ALL, baseline), expected, atol=1e-6)


def test_the_groups_standard_deviation_is_that_of_its_rewards():
    # Squares: (.25 + .25 + 0 + 0) / 4 = .125, and (3 × .04 + .64) / 4 - 0 = (.12 + .36) / 4 = .12.
    expected = [[np.sqrt(2), -np.sqrt(2), 0, 0], [-1 / np.sqrt(3)] * 3 + [np.sqrt(3)]]
    np.testing.assert_allclose(advantages(REWARD, ALL, "group-mean", "group-std"), expected, atol=1e-5)
    scaled = advantages(REWARD, ALL, "leave-one-out", "group-std")
    np.testing.assert_allclose(scaled, np.multiply(expected, 4 / 3), atol=1e-5)


def test_the_batchs_standard_deviation_scales_all_groups_alike():
    # Squares of [.5, -.5, 0, 0, -.2, -.2, -.2, .6] sum to .98; over 8, .1225, whose root is .35.
    expected = np.array([[0.5, -0.5, 0.0, 0.0], [-0.2, -0.2, -0.2, 0.6]]) / 0.35
    np.testing.assert_allclose(advantages(REWARD, ALL, "group-mean", "batch-std"), expected, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_samples_that_do_not_count_are_as_if_they_were_not_there(baseline, scale):
    counted = np.array([[True, True, True, False, True], [True, False, True, True, True], [False] * 5])
    reward = np.full((3, 5), np.nan, np.float32)
    reward[counted] = [0.1, 0.7, 0.4, 0.8, 0.3, 0.9, 0.2, 0.6]
    alone = advantages(reward[:2][counted[:2]].reshape(2, 4), ALL, baseline, scale)
    together = np.asarray(advantages(reward, counted, baseline, scale))
    np.testing.assert_allclose(together[counted], np.ravel(alone), atol=1e-6)
    np.testing.assert_array_equal(together[~counted], 0.0)


@pytest.mark.parametrize("baseline", ["leave-one-out", "group-mean"])
def test_a_sample_alone_in_its_group_has_no_advantage(baseline):
    only = np.array([[True, False, False, False], [True, True, True, True]])
    np.testing.assert_array_equal(advantages(REWARD, only, baseline)[0], 0.0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("baseline", ["leave-one-out", "group-mean"])
def test_rounding_errors_of_equal_rewards_are_no_advantage(baseline, scale):
    reward = np.repeat(np.float32([[0.1], [5.7], [123.4]]), 11, axis=1)
    assert np.abs(reward - reward.sum(axis=1, keepdims=True) / 11).max() > 1e-7
    np.testing.assert_array_equal(advantages(reward, np.ones((3, 11), bool), baseline, scale), 0.0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_a_reward_that_is_no_number_and_counts_is_not_hidden(baseline, scale):
    reward = REWARD.copy()
    reward[1, 2] = np.nan
    assert np.isnan(advantages(reward, ALL, baseline, scale)[1, 2])


def test_groups_are_flat_where_raw_iou_leaves_nothing_to_choose():
    iou = jnp.array([[0.3, 0.3, 0.3], [0.3, 0.3, 0.301], [0.0, 0.0, 0.0], [0.1, 0.9, 0.9], [0.1, 0.5, 0.9]])
    counted = np.array([[True] * 3, [True] * 3, [True] * 3, [False, True, True], [False, True, False]])
    np.testing.assert_array_equal(flat_groups(iou, counted), [True, False, True, True, True])


def test_shapes_that_are_no_groups_are_refused():
    with pytest.raises(ValueError, match=r"\(4,\).*\[prompts, samples\]"):
        group_advantages(jnp.zeros(4), jnp.ones(4, bool), baseline="none", scale="none")
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(2, 1\)"):
        group_advantages(jnp.zeros((2, 4)), jnp.ones((2, 1), bool), baseline="none", scale="none")


rewards = st.lists(st.integers(0, 64), min_size=12, max_size=12).map(
    lambda eighths: np.array(eighths, np.float32).reshape(3, 4) / 64
)
masks = st.lists(st.booleans(), min_size=12, max_size=12).map(lambda flags: np.array(flags).reshape(3, 4))


@settings(max_examples=60, deadline=None)
@given(rewards, masks, st.sampled_from(BASELINES[:2]), st.sampled_from(SCALES), st.integers(-8, 8), st.integers(0, 2))
def test_a_constant_added_to_a_groups_rewards_changes_nothing(reward, counted, baseline, scale, constant, group):
    moved = reward.copy()
    moved[group] += constant
    one, other = (advantages(values, counted, baseline, scale) for values in (reward, moved))
    np.testing.assert_allclose(one, other, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(rewards, masks, st.sampled_from(BASELINES), st.sampled_from(SCALES), st.permutations(range(4)))
def test_permuted_samples_have_permuted_advantages(reward, counted, baseline, scale, order):
    order = np.array(order)
    permuted = advantages(reward[:, order], counted[:, order], baseline, scale)
    np.testing.assert_allclose(permuted, advantages(reward, counted, baseline, scale)[:, order], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rewards, masks)
def test_leave_one_out_is_the_group_mean_scaled_up(reward, counted):
    number = counted.sum(axis=1, keepdims=True)
    factor = np.where(number > 1, number / np.maximum(number - 1, 1), 0.0)
    expected = factor * advantages(reward, counted, "group-mean")
    np.testing.assert_allclose(advantages(reward, counted, "leave-one-out"), expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(rewards, st.sampled_from(["group-std", "batch-std"]))
def test_scaled_advantages_have_unit_variance_wherever_rewards_differ(reward, scale):
    scaled = np.asarray(advantages(reward, np.ones((3, 4), bool), "group-mean", scale))
    groups = scaled if scale == "group-std" else scaled.reshape(1, -1)
    centred = reward - reward.mean(axis=1, keepdims=True)
    differ = np.ptp(reward if scale == "group-std" else centred.reshape(1, -1), axis=1) > 1e-6
    np.testing.assert_allclose(groups.std(axis=1), differ, atol=1e-4)
