"""Terms → reward: combinations, schedules, phrases without target, values that are no numbers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reward_samples import SIDE, edge_batch, rectangle

from moonseg_jax.rewards import mask_iou
from moonseg_jax.rewards.reward import RowValues, batch_rewards, reward_of
from moonseg_jax.rewards.row import RewardRow
from moonseg_jax.rewards.shapes import SHAPES
from moonseg_jax.rewards.spec import RewardSpec
from moonseg_jax.rewards.terms import TERMS
from moonseg_jax.rewards.weighted_term import WeightedTerm
from moonseg_jax.types import FINISH_CLOSED

EVERYTHING = RewardSpec(terms=tuple(WeightedTerm(term=name) for name in TERMS))
judge = jax.jit(lambda rows, step: batch_rewards(EVERYTHING, rows, step))
TERM_NAMES = ("iou", "near_boundary_iou", "validity", "tokens")
VALUES = RowValues(
    terms=dict(zip(TERM_NAMES, map(jnp.asarray, ([0.8, 0.4], [0.5, 0.1], [0.0, -1.0], [-0.2, -0.4])))),
    iou=jnp.asarray([0.8, 0.4]),
    has_target=jnp.asarray([True, True]),
    draws_nothing=jnp.asarray([False, False]),
    is_finite=jnp.asarray([True, True]),
)


def spec(*weights: float, **settings) -> RewardSpec:
    """Weights of iou, near_boundary_iou, validity and tokens."""
    return RewardSpec(
        terms=tuple(WeightedTerm(term=name, weight=weight) for name, weight in zip(TERM_NAMES, weights)), **settings
    )


def rows(count: int = 2) -> RewardRow:
    """The same square, half of it drawn, as many times as asked."""
    drawn = [[rectangle(0.375, 0.5, 0.25, 0.5)]] * count
    truth = np.zeros((count, SIDE, SIDE), bool)
    truth[:, SIDE // 4 : 3 * SIDE // 4, SIDE // 4 : 3 * SIDE // 4] = True
    coverage = np.zeros((count, SIDE, SIDE), np.float32)
    coverage[:, SIDE // 4 : 3 * SIDE // 4, SIDE // 4 : SIDE // 2] = 1
    return RewardRow(
        coverage=coverage, truth=truth, box=np.array([(0.375, 0.5, 0.25, 0.5)] * count, np.float32),
        length=np.full(count, 14), reference_length=np.full(count, 14), finish=np.full(count, FINISH_CLOSED),
        edges=edge_batch(drawn, 8),
    )  # fmt: skip


def changed(array: np.ndarray, place: int | tuple[int, ...], value: float) -> np.ndarray:
    """A copy with one entry, or one row, set."""
    copy = array.copy()
    copy[place] = value
    return copy


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (spec(1.0, 0.5, 0.2, 0.1), [0.8 + 0.25 - 0.02, 0.4 + 0.05 - 0.2 - 0.04]),
        (spec(1.0, 2.0, 0.5, 1.0, combination="product"), [0.8 * 0.25 * 0.8, 0.4 * 0.01 * 0.5 * 0.6]),
        (spec(1.0, 1.0, 2.0, combination="product"), [0.8 * 0.5, 0.0]),
        (spec(1.0, 0.5, 0.0, 0.5, combination="min"), [0.75 - 0.1, 0.4 - 0.2]),
        (spec(1.0, 0.5, 0.2, 0.1, combination="gated", gate=0.5), [0.8 + 0.25 - 0.02, 0.4]),
        (spec(1.0, 0.5, combination="gated", gate=0.4), [0.8 + 0.25, 0.4 + 0.05]),
    ],
)
def test_combinations_by_hand(shape, expected):
    np.testing.assert_allclose(reward_of(shape, VALUES, 0), expected, atol=1e-6)


def test_the_step_is_traced_and_weights_follow_their_schedule():
    shape = spec(1.0, ((100, 0.0), (200, 1.0)))
    compiled = jax.jit(lambda step: reward_of(shape, VALUES, step)[0])
    found = [float(compiled(step)) for step in (0, 100, 150, 200, 100_000)]
    assert found == pytest.approx([0.8, 0.8, 1.05, 1.3, 1.3])
    assert compiled._cache_size() == 1
    term = shape.terms[1]
    assert found == pytest.approx([0.8 + 0.5 * term.weight_at(step) for step in (0, 100, 150, 200, 100_000)])


def test_every_term_of_a_row_by_hand():
    """48 x 48 pixels are true and their left half of 48 x 24 is drawn, as written: raster of 96, 2 % is 3 pixels.

    Rings 3 px wide: 48^2 - 42^2 = 540 true, 48 x 24 - 42 x 18 = 396 drawn; common are the left 3 columns (144) and
    the top and bottom rows of the other 21 columns (126): 270 of 666. Rings 2 px wide: 368 and 272, common are 96
    and 88: 184 of 456. The boundaries' distances are checked where they are computed.
    """
    found = judge(rows(), 0)
    expected = {
        "iou": 0.5, "soft_iou": 0.5, "soft_dice": 2 / 3, "iou_at_least": 1.0, "mean_over_thresholds": 0.1,
        "log_iou": np.log(1.01 / 0.51) / np.log(101), "iou_power": 0.25, "boundary_iou": 270 / 666,
        "near_boundary_iou": 184 / 456, "least_of_iou_and_boundary": 270 / 666, "box_iou": 0.5,
        "box_closeness": 1 - 0.25 / 4 / 0.1, "box_until_good": 0.5, "validity": 0.0, "tokens": -0.014,
        "excess_tokens": 0.0, "euler": 1.0, "specks": 0.0, "crossings": 0.0,
    }  # fmt: skip
    terms = {name: float(value[1]) for name, value in found.terms.items()}
    closeness = terms.pop("boundary_closeness")
    assert terms == pytest.approx(expected, abs=1e-6)
    assert 0.4 < closeness < 0.9
    np.testing.assert_allclose(found.reward, sum(expected.values()) + closeness, atol=1e-5)


def test_raw_iou_is_that_of_the_scorer_and_rows_judged_singly_equal_rows_together():
    shape = SHAPES["iou_excess"].spec
    batch = rows(3)
    batch = batch.replace(coverage=changed(batch.coverage, 1, 0.0), length=np.array([14, 4, 90]))
    together, mapped = (
        jax.jit(functools.partial(batch_rewards, shape, at_once=at_once))(batch, step=7) for at_once in (None, 2)
    )
    np.testing.assert_array_equal(together.iou, mask_iou(jnp.asarray(batch.coverage), batch.truth))
    np.testing.assert_allclose(together.reward, [0.5, -0.1, 0.3], atol=1e-6)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), together, mapped)


def test_a_phrase_without_target_is_answered_rightly_by_an_empty_mask_alone():
    batch = rows(2)
    batch = batch.replace(truth=np.zeros_like(batch.truth), coverage=changed(batch.coverage, 0, 0.5))
    found = judge(batch, 0)
    assert found.reward.tolist() == [1.0, 0.0]
    assert found.iou.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("field", ["coverage", "box", "points"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_never_paid(field, value):
    batch = rows(2)
    if field == "points":
        edges = batch.edges.replace(points=changed(batch.edges.points, (0, 0, 0, 0), value))
        batch = batch.replace(edges=edges)
    else:
        array = getattr(batch, field)
        batch = batch.replace(**{field: changed(array, (0,) * array.ndim, value)})
    for truth in (batch.truth, np.zeros_like(batch.truth)):
        found = judge(batch.replace(truth=truth), 0)
        assert np.isnan(found.reward[0]) and np.isnan(found.iou[0])
        assert np.isfinite(found.reward[1])
