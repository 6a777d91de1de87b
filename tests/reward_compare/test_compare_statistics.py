"""Statistics of two rewards against numbers worked by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from moonseg_jax.reward_compare.statistics import (
    contradictions,
    flat,
    leave_one_out,
    rank_correlation,
    sign_flips,
    spread,
)


def test_an_advantage_is_the_reward_less_the_mean_of_the_others():
    """.9 - (.3 + .6) / 2, .3 - .75, .6 - .6."""
    np.testing.assert_allclose(leave_one_out(np.array([[0.9, 0.3, 0.6], [0.5, 0.5, 0.5]])), [[0.45, -0.45, 0], [0] * 3])


def test_groups_are_flat_where_all_earn_the_same():
    assert flat(np.array([[0.5, 0.5, 0.5 + 1e-8], [0.5, 0.5, 0.51]])).tolist() == [True, False]


def test_spread_is_the_mean_of_the_groups_standard_deviations():
    """0 and 2 lie 1 from their mean, equal ones 0."""
    assert spread(np.array([[0.0, 2.0], [0.3, 0.3]])) == pytest.approx(0.5)


def test_rank_correlation_by_hand():
    """Ranks 1 2 3 4 and 1 3 2 4: 1 - 6 · 2 / (4 · 15). Monotone changes leave it alone."""
    first, second = np.array([0.1, 0.2, 0.7, 0.9]), np.array([0.0, 5.0, 3.0, 90.0])
    assert rank_correlation(first, second) == pytest.approx(0.8)
    assert rank_correlation(first, np.exp(first)) == pytest.approx(1.0)
    assert rank_correlation(first, -first) == pytest.approx(-1.0)
    assert rank_correlation(first, np.zeros(4)) is None


@pytest.mark.parametrize("seed", range(4))
def test_rank_correlation_with_ties_equals_scipys(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 5, (6, 5)) / 7, rng.integers(0, 4, (6, 5)) / 3
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first.ravel(), second.ravel()).statistic)


def test_values_equal_up_to_rounding_are_ties():
    first = np.array([0.0, 0.3, 0.1 + 0.2, 0.9])
    assert rank_correlation(first, np.array([0.0, 1.0, 1.0, 2.0])) == pytest.approx(1.0)


def test_signs_flip_only_from_one_side_to_the_other():
    first = np.array([1.0, -1.0, 1.0, 0.0, 1e-9])
    assert sign_flips(first, np.array([-1.0, 1.0, 2.0, -1.0, -1.0])) == pytest.approx(2 / 5)


def test_the_strongest_contradiction_of_a_group_by_hand():
    """Spreads are 1 in group 0 of the first reward (0, 2) and 1 in the second's: order turned round by 2 in both.

    In group 1 both rewards agree.
    """
    first, second = np.array([[0.0, 2.0], [0.0, 2.0]]), np.array([[4.0, 2.0], [2.0, 4.0]])
    strength, places = contradictions(first, second)
    np.testing.assert_allclose(strength, [2.0, 0.0])
    assert places[0].tolist() == [1, 0], "the first reward prefers sample 1, the second sample 0"


def test_a_contradiction_needs_both_to_disagree():
    """Samples 0 and 2 differ most for the first, but the second does not tell them apart: 0 and 1 are chosen."""
    first, second = np.array([[3.0, 2.0, 0.0]]), np.array([[0.0, 1.0, 0.0]])
    assert contradictions(first, second)[1].tolist() == [[0, 1]]
