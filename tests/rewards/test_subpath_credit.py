"""Credit of subpaths against numbers worked by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reward_samples import edge_batch, rectangle
from tiny_models import micro_policy

from moonseg_jax.rewards.credit import marginal_ious, split_reward, subpath_of_tokens, token_reward

SIDE = 16
marginals_of = jax.jit(marginal_ious, static_argnames="subpaths")


def path(*polygons: np.ndarray):
    return jax.tree.map(lambda leaf: leaf[0], edge_batch([polygons], 16))


def truth(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


BIG, SMALL = rectangle(0.25, 0.25, 0.5, 0.5), rectangle(0.875, 0.875, 0.25, 0.25)
"""64 and 16 pixels of 16 x 16."""
ASTRAY = rectangle(0.875, 0.125, 0.25, 0.25)


def test_marginals_and_shares_by_hand():
    """True are 64 + 16 pixels; drawn are the 64 and 16 elsewhere: IoU 64 / 96.

    Without the first nothing is hit (0); without the second 64 / 80. Marginals 2/3 and -2/15; of the reward of 2/3
    they leave 2/15, a half of it to each: 11/15 and -1/15.
    """
    marginals, present = marginals_of(path(BIG, ASTRAY), truth((0, 0, 8, 8), (12, 12, 16, 16)), subpaths=3)
    np.testing.assert_allclose(marginals, [2 / 3, -2 / 15, 0], atol=1e-6)
    assert present.tolist() == [True, True, False]
    shares = split_reward(jnp.asarray(2 / 3), marginals, present)
    np.testing.assert_allclose(shares, [11 / 15, -1 / 15, 0], atol=1e-6)


def test_a_hole_earns_what_leaving_it_out_would_lose():
    """A frame of 64 - 16 pixels: 1 with both, 48 / 64 without the hole; the hole alone hits nothing."""
    hole = rectangle(0.25, 0.25, 0.25, 0.25)[::-1]
    mask = truth((0, 0, 8, 8)) & ~truth((2, 2, 6, 6))
    marginals, present = marginals_of(path(BIG, hole), mask, subpaths=3)
    np.testing.assert_allclose(marginals, [1.0, 0.25, 0], atol=1e-6)
    shares = split_reward(jnp.asarray(1.0), marginals, present)
    np.testing.assert_allclose(shares, [1.0 - 0.125, 0.25 - 0.125, 0], atol=1e-6)


def test_without_subpaths_there_are_no_shares():
    marginals, present = marginals_of(path(), truth((0, 0, 8, 8)), subpaths=3)
    assert split_reward(jnp.asarray(0.3), marginals, present).tolist() == [0, 0, 0]
    assert not present.any()


def test_tokens_know_their_subpath():
    policy = micro_policy()
    letters, number = policy.vocabulary.command_ids, int(policy.vocabulary.integer_ids[0])
    paths = policy.vocabulary.paths
    words = [paths.coord_token, paths.coord_token, paths.size_token, letters["M"], number, number, letters["Z"]]
    words += [letters["M"], number, letters["Z"], paths.eos, letters["M"], number]
    found = jax.jit(subpath_of_tokens)(np.array([words, words]), np.array([11, 6]), policy.tables)
    assert found[0].tolist() == [-1, -1, -1, 0, 0, 0, 0, 1, 1, 1, -1, -1, -1]
    assert found[1].tolist() == [-1, -1, -1, 0, 0, 0, *[-1] * 7]


@pytest.mark.parametrize(
    ("shares", "length", "expected"),
    [
        ([0.6, -0.1, 0.0], 9, [0, 0, 0, 0.6, 0, 0, -0.1, 0, 0.2, 0]),
        ([0.6, 0.1, 0.0], 9, [0, 0, 0, 0.6, 0, 0, 0.1, 0, 0.0, 0]),
        ([0.0, 0.0, 0.0], 9, [0, 0, 0, 0, 0, 0, 0, 0, 0.7, 0]),
        ([0.3, 0.1, 0.3], 8, [0, 0, 0, 0.3, 0, 0, 0.1, 0.3, 0, 0]),
    ],
)
def test_shares_land_on_the_last_token_of_their_subpath_and_all_is_paid(shares, length, expected):
    token_subpath = np.array([-1, -1, 0, 0, 1, 1, 1, -1, -1, -1])
    found = jax.jit(token_reward)(0.7, np.array(shares, np.float32), token_subpath, length)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert float(found.sum()) == pytest.approx(0.7)
