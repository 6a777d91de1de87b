"""Advantages of tokens: by hand, against an exact expectation, and beside those of whole paths."""

import dataclasses
import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import QUICK, micro_policy

from moonseg_jax.learner.credit import credit
from moonseg_jax.learner.policy_objective import loss_under, token_advantages_under
from moonseg_jax.learner.policy_presets import PolicyLossConfig, preset
from moonseg_jax.learner.stage_credit import returns_to_go, stage_advantages
from moonseg_jax.types import INJECTED, SAMPLED, Rollouts, Scored

LOSS = PolicyLossConfig()
TABLES, LETTERS = micro_policy().tables, micro_policy().vocabulary.command_ids
NUMBER, EOS = int(micro_policy().vocabulary.integer_ids[0]), micro_policy().config.paths.eos
compiled = functools.cache(lambda baseline: jax.jit(functools.partial(stage_advantages, baseline=baseline)))


def test_returns_are_what_is_still_to_come():
    found = returns_to_go(np.array([[0, 0.75, 0, -0.25, 0.125]], np.float32))
    np.testing.assert_allclose(found, [[0.625, 0.625, -0.125, -0.125, 0.125]], atol=1e-7)


STAGE = np.array([[[0, 0, 1, 1, 2], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]]])
RETURNS = np.array([[[0.9, 0.9, 0.4, 0.4, 0.1], [0.3, -0.2, -0.2, 7, 7], [0.6, 0.6, 0.6, 7, 7]]], np.float32)
LENGTHS = np.array([[5, 3, 3]])


def test_samples_are_compared_with_the_others_that_came_as_far():
    """Stage 0: .9, .3 and .6, less means of two. Stage 1: .4 against -.2. Stage 2 has one sample, compared with 0."""
    found = compiled("leave-one-out")(RETURNS, STAGE, LENGTHS, np.ones((1, 3), bool))
    within = np.arange(5) < LENGTHS[..., None]
    expected = [[[0.45, 0.45, 0.6, 0.6, 0.1], [-0.45, -0.6, -0.6, 0, 0], [0, 0, 0, 0, 0]]]
    np.testing.assert_allclose(np.where(within, found, 0), expected, atol=1e-6)


def test_samples_that_do_not_count_are_nothing_to_any_stage():
    spoilt = np.where(np.arange(3)[:, None] == 1, np.nan, RETURNS)
    found = compiled("leave-one-out")(spoilt, STAGE, LENGTHS, np.array([[True, False, True]]))
    np.testing.assert_allclose(found[0, 0], [0.3, 0.3, 0.4, 0.4, 0.1], atol=1e-6)
    np.testing.assert_allclose(found[0, 1], 0, atol=1e-6)
    np.testing.assert_allclose(found[0, 2, :3], -0.3, atol=1e-6)


def test_without_a_baseline_advantages_are_the_returns():
    found = compiled("none")(RETURNS, STAGE, LENGTHS, np.ones((1, 3), bool))
    np.testing.assert_allclose(found[0, 0], RETURNS[0, 0], atol=1e-6)


def test_a_return_that_is_no_number_reaches_the_loss():
    spoilt = np.where(np.arange(3)[:, None] == 1, np.nan, RETURNS)
    found = np.asarray(compiled("leave-one-out")(spoilt, STAGE, LENGTHS, np.ones((1, 3), bool)))
    assert np.isnan(found[0, :, 0]).all() and np.isnan(found[0, 0, 2]) and found[0, 0, 4] == np.float32(0.1)


def drawn_tokens(path: tuple[int, ...], weights):
    """Log-probabilities of a path of a policy with three choices: x, whether to go on after closing, then y."""
    x, *after = path
    go_on = weights[1] + x * weights[3]
    log_probs = [jax.nn.log_sigmoid(weights[0] * (2 * x - 1)), 0.0]
    if not after:
        return [*log_probs, jax.nn.log_sigmoid(-go_on), 0.0, 0.0, 0.0]
    return [*log_probs, jax.nn.log_sigmoid(go_on), jax.nn.log_sigmoid(weights[2] * (2 * after[0] - 1)), 0.0, 0.0]


@pytest.mark.parametrize("baseline", ["leave-one-out", "none"])
def test_the_gradient_is_unbiased(baseline):
    """Over all pairs of the six paths `x Z END` and `x Z M y Z END`, by their probabilities: the expected estimate is
    the gradient of the expected reward, though returns are dropped and baselines differ between stages."""
    paths = [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
    earned = np.zeros((6, 6), np.float32)
    earned[:, 1] = [0.6, 0.2, 0.6, 0.6, 0.2, 0.2]
    earned[2:, 4] = [0.5, -0.3, 0.1, 0.7]
    earned[0, 2], earned[5, 5] = 0.15, -0.4
    stage = np.array([[0, 0, 1, 1, 1, 1]] * 2 + [[0, 0, 1, 1, 1, 2]] * 4)
    lengths = np.array([3, 3, 6, 6, 6, 6])
    pairs = np.array(list(itertools.product(range(6), repeat=2)))
    advantage = compiled(baseline)(returns_to_go(earned[pairs]), stage[pairs], lengths[pairs], np.ones((36, 2), bool))

    def log_probs(weights):
        return jnp.stack(
            [jnp.stack([jnp.asarray(one, jnp.float32) for one in drawn_tokens(p, weights)]) for p in paths]
        )

    @jax.jit
    def both(weights):
        chances = jnp.exp(log_probs(weights).sum(axis=1))
        true = jax.grad(lambda w: jnp.exp(log_probs(w).sum(axis=1)) @ earned.sum(axis=1))(weights)
        slopes = jax.jacobian(log_probs)(weights)[pairs]
        within = (np.arange(6) < lengths[pairs][..., None]).astype(np.float32)
        estimates = jnp.einsum("pgt,pgtw->pw", advantage * within, slopes) / 2
        return true, chances.sum(), chances[pairs].prod(axis=1) @ estimates

    true, total, expected = both(jnp.array([0.3, -0.4, 0.8, 0.5]))
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    np.testing.assert_allclose(expected, true, atol=1e-6)
    assert (np.abs(true) > 1e-3).all()


ONE, TWO, THREE = "M 0 Z end", "M Z M 0 Z end", "M Z M Z M Z end"


def rolled(*paths: str, source=None) -> Rollouts:
    rows = [[{"0": NUMBER, "end": EOS}.get(word) or LETTERS.get(word, EOS) for word in path.split()] for path in paths]
    ids = np.array([row + [EOS] * (8 - len(row)) for row in rows])
    return Rollouts(
        token_ids=ids, bins=np.zeros((*ids.shape, 2), int), log_probs=np.zeros(ids.shape, np.float32),
        lengths=np.array([len(row) for row in rows]), budgets=np.full(len(rows), 8),
        finish=np.zeros(len(rows), int), experts=None, source=None if source is None else np.array(source),
    )  # fmt: skip


def scored(given: Rollouts, at_closings, iou=None) -> Scored:
    """What each closing earns; nothing else earns anything."""
    earned, closed = np.zeros(given.token_ids.shape, np.float32), given.token_ids == LETTERS["Z"]
    for row, values in enumerate(at_closings):
        earned[row, np.flatnonzero(closed[row])] = values
    reward = earned.sum(axis=1)
    return Scored(iou=reward if iou is None else np.array(iou, np.float32), reward=reward, token_reward=earned)


@functools.partial(jax.jit, static_argnames=("loss", "prompts"), compiler_options=QUICK)
def credited(given: Rollouts, paid: Scored, loss=LOSS, prompts=1):
    return credit(loss, SimpleNamespace(valid=np.ones((prompts, 1), bool)), given, paid, 8, TABLES)


def of_paths(given: Rollouts, paid: Scored, loss=LOSS, prompts=1):
    return np.asarray(credited(given, paid.replace(token_reward=None), loss, prompts).advantage)


def test_tokens_of_groups_by_hand():
    """Rewards .9 and .3 at stage 0; of the first .2 is still to come after its first subpath, of the second nothing."""
    given = rolled(TWO, ONE, THREE, ONE)
    found = credited(given, scored(given, [[0.7, 0.2], [0.3], [0.5, 0.1, -0.2], [0.6]]), prompts=2)
    expected = np.zeros((4, 8))
    expected[0, :6] = [0.6, 0.6, 0.2, 0.2, 0.2, 0.0]
    expected[1, :4] = [-0.6, -0.6, -0.6, -0.2]
    expected[2, :7] = [-0.2, -0.2, -0.1, -0.1, -0.2, -0.2, 0.0]
    expected[3, :4] = [0.2, 0.2, 0.2, 0.1]
    np.testing.assert_array_equal(found.learned.sum(axis=1), [6, 4, 7, 4])
    np.testing.assert_allclose(np.where(found.learned, found.advantage, 0), expected, atol=1e-6)


def test_up_to_the_first_closing_a_token_has_the_credit_of_its_path():
    given = rolled(TWO, ONE, THREE)
    paid = scored(given, [[0.7, 0.2], [0.3], [0.5, 0.1, -0.2]])
    found, closed = credited(given, paid), given.token_ids == LETTERS["Z"]
    expected = np.broadcast_to(of_paths(given, paid)[:, None], closed.shape)
    first = np.cumsum(closed, axis=1) - closed == 0
    np.testing.assert_allclose(np.asarray(found.advantage)[first], expected[first], atol=1e-6)


def test_paths_of_one_subpath_have_the_credit_of_paths_at_all_tokens_but_the_eos():
    given = rolled(ONE, ONE, ONE)
    paid = scored(given, [[0.9], [0.3], [0.5]])
    found = np.asarray(credited(given, paid).advantage)
    np.testing.assert_array_equal(found[:, :3], np.repeat(of_paths(given, paid)[:, None], 3, axis=1))
    assert not found[:, 3].any(), "after the only subpath there is nothing to win or to lose"


def test_groups_of_one_iou_are_dropped_whatever_their_tokens_earn():
    given = rolled(TWO, ONE)
    found = credited(given, scored(given, [[0.7, 0.2], [0.3]], iou=[0.5, 0.5]))
    assert not found.learned.any() and not np.asarray(found.advantage).any()
    np.testing.assert_array_equal(found.flat, (1, 1))


def test_an_injected_path_is_credited_as_a_whole_and_is_in_no_baseline():
    given = rolled(TWO, ONE, THREE, source=[SAMPLED, SAMPLED, INJECTED])
    paid = scored(given, [[0.7, 0.2], [0.3], [0.5, 0.1, 0.4]])
    found, without = credited(given, paid), rolled(TWO, ONE)
    alone = credited(without, jax.tree.map(lambda rows: rows[:2], paid))
    np.testing.assert_allclose(found.advantage[:2], alone.advantage, atol=1e-7)
    np.testing.assert_allclose(found.advantage[2], 1.0 - 0.6, atol=1e-6)
    np.testing.assert_allclose(of_paths(given, paid)[2], 1.0 - 0.6, atol=1e-6)


def test_overlong_completions_are_punished_at_their_end():
    """Of a budget of 8 the last 4 cost: 6 tokens half, 4 nothing. All stages the path reached bear it."""
    loss = PolicyLossConfig(overlong_weight=0.2, overlong_buffer=4)
    given = rolled(TWO, ONE)
    paid = scored(given, [[0.7, 0.2], [0.3]])
    found = credited(given, paid, loss)
    np.testing.assert_allclose(found.advantage[0, :6], [0.5, 0.5, 0.1, 0.1, 0.1, -0.1], atol=1e-6)
    np.testing.assert_allclose(found.advantage[:, 0], of_paths(given, paid, loss), atol=1e-6)


def test_the_loss_sums_what_tokens_are_credited_with():
    """At equal policies the surrogate is minus the sum of advantages: 1.2 - 2.0 in all, of two sequences."""
    given = rolled(TWO, ONE)
    found = credited(given, scored(given, [[0.7, 0.2], [0.3]]))
    flat = np.full((2, 8), -1.0, np.float32)
    lost = loss_under(LOSS, flat, flat, found.advantage, found.learned, max_tokens=8)
    np.testing.assert_allclose(lost.surrogate, (-(1.8 - 2.0), 2), atol=1e-6)
    tokens = dataclasses.replace(LOSS, aggregation="token-mean")
    lost = loss_under(tokens, flat, flat, found.advantage, found.learned, max_tokens=8)
    np.testing.assert_allclose(lost.surrogate, (-(1.8 - 2.0), 10), atol=1e-6)


def test_what_cannot_be_compared_by_stage_is_refused():
    inputs = (np.zeros((1, 3, 5)), STAGE, LENGTHS, np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="group-mean cannot compare stages"):
        stage_advantages(*inputs, baseline="group-mean")
    with pytest.raises(ValueError, match=r"must be \[prompts, samples, tokens\]"):
        stage_advantages(inputs[0][0], *inputs[1:], baseline="none")
    with pytest.raises(ValueError, match="scale is group-std"):
        token_advantages_under(preset("grpo"), *inputs, 5)
