"""Overlong completions, in tokens."""

import jax.numpy as jnp
import numpy as np

from moonseg_jax.learner.overlong import soft_overlong_punishment, within_budget


def test_the_punishment_grows_over_the_last_tokens_of_the_budget():
    lengths = jnp.array([[0, 1, 16], [17, 18, 20], [21, 40, 15]])
    expected = [[0.0, 0.0, 0.0], [-0.25, -0.5, -1.0], [-1.0, -1.0, 0.0]]
    np.testing.assert_allclose(soft_overlong_punishment(lengths, 20, 4), expected, atol=1e-7)


def test_the_punishment_of_the_paper_at_its_own_sizes():
    lengths = jnp.array([16384, 16385, 18432, 20480])
    expected = [0.0, -1 / 4096, -0.5, -1.0]
    np.testing.assert_allclose(soft_overlong_punishment(lengths, 20480, 4096), expected, atol=1e-7)


def test_a_completion_that_used_its_whole_budget_is_truncated():
    np.testing.assert_array_equal(within_budget(jnp.array([0, 43, 44]), 44), [True, True, False])
