"""Shapes beside each other on rollouts whose rewards are worked by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stored_samples import stored

from moonseg_jax.errors import UserError
from moonseg_jax.reward_compare.comparison import as_data, chosen_shapes, compare
from moonseg_jax.reward_compare.page import comparison_page
from moonseg_jax.reward_compare.scoring import rewards_of
from moonseg_jax.rewards import RewardSpec, WeightedTerm
from moonseg_jax.rewards.shapes import SHAPES, shape

SHORT = RewardSpec(
    terms=(WeightedTerm(term="iou"), WeightedTerm(term="tokens", weight=((0, 0), (8, 4)), parameters={"full": 100}))
)
"""IoU less a price that rises by .5 a step: at step 7, 3.5 times the length / 100."""
PASSED = RewardSpec(terms=(WeightedTerm(term="iou_at_least", parameters={"at": 0.4}),))
SPECS = {"iou": shape("iou"), "short": SHORT, "passed": PASSED}


@pytest.fixture(scope="module")
def comparison():
    return compare(stored(), SPECS)


def test_schedules_stand_where_each_group_was_sampled_or_where_they_are_told_to():
    iou, rewards = rewards_of(stored(), SPECS)
    np.testing.assert_allclose(iou, [[1, 0.5, 0.25], [0.5, 0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(rewards["short"][0], [1 - 1.75, 0.5 - 0.7, 0.25 - 0.35], atol=1e-6)
    np.testing.assert_allclose(rewards["short"][1], 0.5 - 0.4, atol=1e-6)
    np.testing.assert_allclose(rewards["passed"], [[1, 1, 0], [1, 1, 1]])
    np.testing.assert_allclose(rewards_of(stored(), SPECS, step=0)[1]["short"], iou, atol=1e-6)


def test_pairs_are_judged_on_groups_that_are_not_flat_in_raw_iou(comparison):
    """Of group 0 alone. IoU ranks 3 2 1, the short one 1 2 3; its advantages are -.6, .225 and .375 where those of IoU
    are .625, -.125 and -.5: all three flip."""
    assert comparison.learned == 1
    pair = comparison.pair("short", "iou")
    assert (pair.rank_correlation, pair.sign_flips) == (pytest.approx(-1.0), pytest.approx(1.0))
    passed = comparison.pair("iou", "passed")
    assert passed.rank_correlation == pytest.approx(np.sqrt(3) / 2) and passed.sign_flips == pytest.approx(1 / 3)
    assert [(one.first, one.second) for one in comparison.pairs] == [
        ("iou", "short"), ("iou", "passed"), ("short", "passed"),
    ]  # fmt: skip


def test_shapes_are_judged_on_all_groups(comparison):
    figures = comparison.figures["passed"]
    assert figures.mean == pytest.approx(5 / 6) and figures.flat_groups == 0.5
    assert figures.spread == pytest.approx(np.sqrt(2) / 3 / 2)


def test_the_strongest_contradiction_names_both_samples(comparison):
    """IoU tells sample 0 from 2 best; the shape that pays for brevity turns just these round."""
    (one,) = comparison.contradictions
    assert (one.shape, one.group, one.by_iou, one.by_shape) == ("short", 0, 0, 2)


def test_a_group_with_a_reward_that_is_no_number_is_counted_and_left_out(comparison):
    broken = stored()
    broken.box[1, 2, 0] = np.nan
    found = compare(broken, SPECS)
    assert (found.not_finite, found.learned) == (1, 1)
    assert found.figures["passed"].flat_groups == 0.0
    assert found.pairs == comparison.pairs
    broken.box[0, 0, 0] = np.nan
    nothing = compare(broken, SPECS)
    assert (nothing.not_finite, nothing.learned, nothing.contradictions) == (2, 0, ())
    assert nothing.pair("iou", "short").rank_correlation is None


def test_plain_iou_comes_first_and_the_runs_own_reward_last():
    assert list(chosen_shapes(())) == list(SHAPES)
    assert list(chosen_shapes(("topology", "iou", "boundary"), SHORT)) == ["iou", "topology", "boundary", "this run"]
    with pytest.raises(UserError, match="no shape 'boundry'; did you mean 'boundary'"):
        chosen_shapes(("boundry",))


def test_the_data_names_what_was_compared(comparison):
    data = as_data(comparison, stored(), None)
    assert (data["groups"], data["samples_per_group"], data["groups_learned"]) == (2, 3, 1)
    assert (data["first_step"], data["last_step"], data["schedules_at"]) == (7, 8, "as sampled")
    assert data["contradictions"][0]["example_id"] == 30
    assert RewardSpec.from_data(data["shapes"]["short"]["spec"]) == SHORT
    assert data["pairs"][0] == dataclasses.asdict(comparison.pairs[0])


def test_the_page_shows_both_samples_and_fetches_nothing(comparison):
    page = comparison_page(comparison, stored(), "<b>run</b>")
    assert page.count("<article") == 1 and page.count("data:image/png;base64,") == 2
    assert "iou prefers this: IoU 1.000, short -0.750, 50 tokens" in page
    assert "short prefers this: IoU 0.250, short -0.100, 10 tokens" in page
    assert "M25.00 25.00 L50.00 25.00 L50.00 50.00 L25.00 50.00Z" in page
    assert "<b>run" not in page and "<script" not in page and "://" not in page


def test_a_page_without_contradictions_says_so():
    page = comparison_page(compare(stored(), {"iou": shape("iou"), "passed": PASSED}), stored(), "run")
    assert "No shape turns the order of two samples round." in page
