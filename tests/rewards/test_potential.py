"""Rewards placed where subpaths close, against numbers worked by hand."""

import numpy as np
import pytest
from tiny_models import micro_policy

from moonseg_jax.rewards.potential import closings, increments, on_last_token, stages

TABLES, LETTERS = micro_policy().tables, micro_policy().vocabulary.command_ids
NUMBER = int(micro_policy().vocabulary.integer_ids[0])


def words(text: str) -> list[int]:
    return [LETTERS.get(word, NUMBER) for word in text.split()]


def test_a_subpath_is_closed_by_its_z_within_the_completion():
    row = words("M 0 0 Z M 0 Z Z")
    found = np.asarray(closings(np.array([row, row]), np.array([8, 6]), TABLES))
    np.testing.assert_array_equal(found, np.array([[0, 0, 0, 1, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0, 0, 0]], bool))
    np.testing.assert_array_equal(stages(found), [[0, 0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 1, 1, 1, 1]])


CLOSED = np.array([[0, 1, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0], [0] * 6], bool)
LENGTHS = np.array([6, 5, 3, 4, 0])
POTENTIAL = np.where(CLOSED, [9, 0.75, 9, 0.5, 9, 9], 9).astype(np.float32)
REWARD = np.array([0.625, 0.5, 0.25, 1.0, 0.5], np.float32)


def test_closings_earn_what_they_add_and_the_end_earns_the_rest():
    """From 0 to .75 to .5 to the reward; the fourth path ends with its second closing, the fifth has no tokens."""
    found = increments(REWARD, POTENTIAL, CLOSED, LENGTHS)
    expected = [
        [0, 0.75, 0, -0.25, 0, 0.125], [0, 0.75, 0, -0.25, 0, 0], [0, 0, 0.25, 0, 0, 0], [0, 0.75, 0, 0.25, 0, 0],
        [0] * 6,
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(np.sum(found, axis=1)[:4], REWARD[:4], atol=1e-7)


def test_a_reward_that_is_no_number_stays_none():
    found = increments(np.full(5, np.nan, np.float32), POTENTIAL, CLOSED, LENGTHS)
    assert np.isnan(found).sum() == 4 and np.isnan(found[0, 5])


def test_whole_rewards_stand_on_the_last_token():
    found = on_last_token(np.array([0.5, 0.25], np.float32), np.array([2, 0]), 3)
    np.testing.assert_array_equal(found, [[0, 0.5, 0], [0, 0, 0]])


@pytest.mark.parametrize("wrong", [(REWARD[:4], POTENTIAL, CLOSED), (REWARD, POTENTIAL[:, :5], CLOSED)])
def test_arrays_of_other_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be \[paths, tokens\]"):
        increments(*wrong, LENGTHS)
