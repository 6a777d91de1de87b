"""Costs of validity and of length against numbers worked by hand."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from moonseg_jax.rewards.length import excess_cost, token_cost
from moonseg_jax.rewards.validity import validity_cost
from moonseg_jax.types import FINISH_BUDGET, FINISH_CLOSED, FINISH_INVALID


def test_validity_takes_the_largest_cost_that_applies():
    finish = jnp.asarray([FINISH_CLOSED, FINISH_CLOSED, FINISH_BUDGET, FINISH_BUDGET, FINISH_INVALID])
    missing = jnp.asarray([False, True, False, True, True])
    found = validity_cost(finish, missing, 1.0, 0.25, 0.5)
    assert found.tolist() == [0.0, -0.5, -0.25, -0.5, -1.0]


def test_tokens_cost_alike_up_to_the_full_price():
    assert token_cost(jnp.asarray([0, 30, 200]), jnp.zeros(3), 120, 0.0).tolist() == pytest.approx([0, -0.25, -1])


def test_tokens_of_poor_outlines_may_be_free():
    iou = jnp.asarray([0.49, 0.5, 0.9])
    assert token_cost(jnp.asarray([60, 60, 60]), iou, 120, 0.5).tolist() == pytest.approx([0, -0.5, -0.5])


def test_only_what_exceeds_the_reference_costs():
    """Reference 40, slack 1.25: up to 50 tokens are free; with full = 2 each further 80 cost 1."""
    length = jnp.asarray([10, 50, 70, 130, 500])
    found = excess_cost(length, jnp.full(5, 40), jnp.ones(5), 1.25, 2.0, 0.0)
    assert found.tolist() == pytest.approx([0, 0, -0.25, -1, -1])


def test_a_missing_reference_counts_as_one_token():
    assert float(excess_cost(jnp.asarray(3), jnp.asarray(0), jnp.asarray(1.0), 1.0, 4.0, 0.0)) == -0.5
