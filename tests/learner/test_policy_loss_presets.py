"""Every preset against an example worked by hand and against its paper's formula, written as loops in NumPy.

Gradients are compared with finite differences of those formulas, in double precision.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import QUICK

from moonseg_jax.config import ConfigError
from moonseg_jax.learner.policy_objective import advantages_under, learned_under, loss_under
from moonseg_jax.learner.policy_presets import PRESETS, PolicyLossConfig

PROMPTS, GROUP, BUDGET = 3, 4, 10
EVERYTHING = PolicyLossConfig(
    scale="batch-std", aggregation="sequence-mean", correction_cap=1.2, kl_weight=0.3, kl_estimator="k1",
    entropy_weight=0.05, mask_truncated=True,
)  # fmt: skip
CONFIGS = {**PRESETS, "everything": EVERYTHING}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


quickly = functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)


def objective(config, now, old, reward, lengths, **arrays):
    """From rewards [Q, G] to the loss of all their tokens."""
    budget = now.shape[1]
    counted = jnp.ones(reward.shape, bool)
    advantage = advantages_under(config, reward, lengths.reshape(reward.shape), counted, budget).reshape(-1)
    learned = learned_under(config, lengths, counted.reshape(-1), budget)
    return loss_under(config, now, old, advantage, learned, max_tokens=budget, **arrays)


@quickly
def loss_and_gradient(name, now, old, reference, reward, lengths):
    """The loss of a preset as (sum, count), and the gradient of the sum in the log-probabilities."""

    def loss(now):
        sums = objective(PRESETS[name], now, old, reward, lengths, reference_log_probs=reference)
        return sums.loss[0], sums.loss

    gradient, pair = jax.grad(loss, has_aux=True)(now)
    return pair, gradient


@pytest.mark.parametrize(
    ("name", "total", "count", "slopes"),
    [
        # Ratios 1.5, 0.5 and 0.9 under advantages 1, 1 and -1: min(1.5, 1.2) + .5 - .9 = .8.
        ("rloo", -0.8, 2, [0.0, -0.5, 0.9]),
        # Rewards 1 and 0 times log .75 + log .2 and log .18.
        ("reinforce", -math.log(0.15), 2, [-1.0, -1.0, 0.0]),
        # Advantages ±1. (1.2 + .5) / 2 - .9 = -.05; KL per token 0, 1 - log 2 and log 2 - .5, so log 2 / 2 in all;
        # gradient of KL: 1 - ref / π = 0, -1 / 2 and .5.
        ("grpo", 0.05 + 0.04 * math.log(2) / 2, 2, [0.0, -0.25 - 0.02, 0.9 + 0.02]),
        # 1.28 in the place of 1.2, over three tokens.
        ("dapo", -0.88, 3, [0.0, -0.5, 0.9]),
        # Advantages ±1/2, sums over the budget of 10 tokens.
        ("dr_grpo", -0.04, 2, [0.0, -0.025, 0.045]),
        # Sequence ratios √.75, below the interval but not where the clip acts, and .9, clipped to .9997.
        ("gspo", 0.9997 - math.sqrt(0.75), 2, [-math.sqrt(0.75) / 2, -math.sqrt(0.75) / 2, 0.0]),
    ],
)
def test_presets_on_an_example_worked_by_hand(name, total, count, slopes):
    def padded(first, second):
        rows = np.full((2, BUDGET), np.nan)
        rows[0, :2], rows[1, 0] = np.log(first), np.log(second)
        return jnp.array(rows)

    now, old = padded([0.75, 0.2], 0.18), padded([0.5, 0.4], 0.2)
    reference = padded([0.75, 0.4], 0.09) if PRESETS[name].needs_reference else None
    reward, lengths = jnp.array([[1.0, 0.0]]), jnp.array([2, 1])

    loss, gradient = loss_and_gradient(name, now, old, reference, reward, lengths)
    np.testing.assert_allclose(loss, (total, count), rtol=1e-6)
    gradient = np.asarray(gradient)
    np.testing.assert_allclose([*gradient[0, :2], gradient[1, 0]], slopes, atol=1e-6)
    assert np.count_nonzero(gradient) == np.count_nonzero(slopes)


@functools.cache
def samples():
    """Log-probabilities of three policies, rewards and lengths: 3 prompts × 4 samples, one of them at the budget."""
    rng = np.random.default_rng(7)
    old = -rng.uniform(0.1, 3.0, (PROMPTS * GROUP, BUDGET))
    now, reference = (old + spread * rng.normal(size=old.shape) for spread in (0.3, 0.5))
    now[:6] = old[:6] + 0.005 * rng.normal(size=(6, BUDGET))
    lengths = np.array([4, 9, 1, 6, 8, 3, 5, 7, 10, 2, 9, 6])
    return now, old, reference, rng.uniform(size=(PROMPTS, GROUP)), lengths


def sequences(lengths):
    """(prompt, sample, row, length) of every sequence."""
    return [(*divmod(row, GROUP), row, length) for row, length in enumerate(lengths)]


def clipped(ratio, advantage, low, high):
    return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def normalised(reward):
    return (reward - reward.mean(axis=1, keepdims=True)) / reward.std(axis=1, keepdims=True)


def grpo(now, old, reference, reward, lengths):
    """DeepSeekMath, eq. 3 with eq. 4: mean over samples of the mean over tokens."""
    objective = 0.0
    for q, g, row, length in sequences(lengths):
        for t in range(length):
            apart = np.exp(reference[row, t] - now[row, t])
            kl = apart - np.log(apart) - 1
            ratio = np.exp(now[row, t] - old[row, t])
            gain = clipped(ratio, normalised(reward)[q, g], 0.2, 0.2) - 0.04 * kl
            objective += gain / length / len(lengths)
    return -objective


def dapo(now, old, _, reward, lengths):
    """DAPO, eq. 8 and 9 over the tokens of the batch; rewards with eq. 13 for L_max 10 and L_cache 2."""
    punishment = [0.0 if length <= 8 else (8 - length) / 2 if length <= 10 else -1.0 for length in lengths]
    advantage = normalised(reward + np.reshape(punishment, reward.shape))
    gains = [
        clipped(np.exp(now[row, t] - old[row, t]), advantage[q, g], 0.2, 0.28)
        for q, g, row, length in sequences(lengths)
        for t in range(length)
    ]
    return -sum(gains) / sum(lengths)


def dr_grpo(now, old, _, reward, lengths):
    """Understanding R1-Zero-like training, §3: no division by length or standard deviation; a constant, the budget."""
    total = 0.0
    for q, g, row, length in sequences(lengths):
        advantage = reward[q, g] - np.mean(reward[q])
        total += sum(clipped(np.exp(now[row, t] - old[row, t]), advantage, 0.2, 0.2) for t in range(length))
    return -total / BUDGET / len(lengths)


def gspo(now, old, _, reward, lengths):
    """GSPO, eq. 5 to 7: the ratio of sequences, to the power of one over their length."""
    total = 0.0
    for q, g, row, length in sequences(lengths):
        likelihood, old_likelihood = np.exp(now[row, :length].sum()), np.exp(old[row, :length].sum())
        total += clipped((likelihood / old_likelihood) ** (1 / length), normalised(reward)[q, g], 3e-4, 4e-4)
    return -total / len(lengths)


def left_one_out(reward, q, g):
    return reward[q, g] - np.mean([reward[q, other] for other in range(GROUP) if other != g])


def rloo(now, old, _, reward, lengths):
    """The estimator of Ahmadian et al. 2024, as a loss with ratios, clipped as in PPO."""
    total = 0.0
    for q, g, row, length in sequences(lengths):
        ratios = np.exp(now[row, :length] - old[row, :length])
        total += sum(clipped(ratio, left_one_out(reward, q, g), 0.2, 0.2) for ratio in ratios)
    return -total / len(lengths)


def reinforce(now, _old, _reference, reward, lengths):
    """Williams 1992: reward times the log-probability of the whole sequence."""
    return -sum(reward[q, g] * now[row, :length].sum() for q, g, row, length in sequences(lengths)) / len(lengths)


PAPERS = {"rloo": rloo, "reinforce": reinforce, "grpo": grpo, "dapo": dapo, "dr_grpo": dr_grpo, "gspo": gspo}


def slopes_of(formula, now, step=1e-6):
    """Finite differences of a formula in each of its log-probabilities."""
    slopes = np.zeros(now.shape)
    for place in np.ndindex(now.shape):
        low, high = now.copy(), now.copy()
        low[place] -= step
        high[place] += step
        slopes[place] = (formula(high) - formula(low)) / (2 * step)
    return slopes


def mean_loss_and_gradient(name, now):
    _, old, reference, reward, lengths = samples()
    reference = reference if PRESETS[name].needs_reference else None
    (total, count), gradient = loss_and_gradient(name, now, old, reference, reward, lengths)
    return total / count, gradient / count


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_their_papers_formulas(name):
    now, *rest = samples()
    loss, gradient = mean_loss_and_gradient(name, now)
    np.testing.assert_allclose(loss, PAPERS[name](now, *rest), rtol=1e-9)
    slopes = slopes_of(lambda moved: PAPERS[name](moved, *rest), now)
    np.testing.assert_allclose(gradient, slopes, atol=1e-8)
    assert np.abs(slopes).max() > 1e-3


def test_rloo_on_policy_is_reinforce_with_the_others_as_baseline():
    _, old, _, reward, lengths = samples()

    def estimator(now):
        whole = sequences(lengths)
        return -sum(left_one_out(reward, q, g) * now[row, :length].sum() for q, g, row, length in whole) / len(whole)

    gradient = mean_loss_and_gradient("rloo", old)[1]
    np.testing.assert_allclose(gradient, slopes_of(estimator, old), atol=1e-8)


@functools.cache
def batch(name):
    """Eight sequences of two groups, one of them padding: policies, advantages and masks of a config."""
    config = CONFIGS[name]
    rng = np.random.default_rng(3)
    now, old, behaviour, reference, entropy = rng.uniform(-2.0, -0.5, (5, 8, 6))
    lengths = np.array([3, 6, 1, 5, 4, 2, 6, 5])
    counted = np.arange(8) != 4
    reward = jnp.asarray(rng.uniform(size=(2, 4)))
    advantage = advantages_under(config, reward, lengths.reshape(2, 4), jnp.asarray(counted.reshape(2, 4)), 6)
    arrays = {"log_probs": now, "old_log_probs": old, "advantage": advantage.reshape(-1)}
    arrays["learned"] = learned_under(config, jnp.asarray(lengths), jnp.asarray(counted), 6)
    arrays["reference_log_probs"] = reference
    arrays["entropy"] = -entropy
    if config.correction_cap is not None:
        arrays["behaviour_log_probs"] = behaviour
    return {key: np.asarray(array) for key, array in arrays.items()}


@quickly
def sums_and_gradients(name, arrays):
    """All sums of a micro-batch, and the gradient of its loss sum in the log-probabilities and the entropy."""

    def loss(moved):
        sums = loss_under(CONFIGS[name], **{**arrays, **moved}, max_tokens=6)
        return sums.loss[0], sums

    moved = {key: arrays[key] for key in ("log_probs", "entropy")}
    gradients, sums = jax.grad(loss, has_aux=True)(moved)
    return sums, gradients


@pytest.mark.parametrize("name", CONFIGS)
def test_micro_batches_add_up_to_the_whole_batch(name):
    arrays = batch(name)
    sums, gradients = sums_and_gradients(name, arrays)
    for size in (1, 2, 4):
        rows = [slice(at, at + size) for at in range(0, 8, size)]
        parts = [{key: array[part] for key, array in arrays.items()} for part in rows]
        part_sums, part_gradients = zip(*(sums_and_gradients(name, part) for part in parts))
        added = jax.tree.map(lambda *leaves: sum(leaves), *part_sums)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), added, sums)
        for key, gradient in gradients.items():
            together = np.concatenate([part[key] for part in part_gradients]) / added.loss[1]
            np.testing.assert_allclose(together, gradient / sums.loss[1], rtol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_leaks_from_tokens_that_are_not_learned(name):
    arrays = batch(name)
    learned = arrays["learned"]
    clean = sums_and_gradients(name, arrays)
    assert (np.asarray(clean[1]["log_probs"])[learned] != 0).any()
    for poison in (np.nan, np.inf, -np.inf):
        per_token = {key: array for key, array in arrays.items() if array.ndim == 2 and key != "learned"}
        spoilt = {key: np.where(learned, array, poison) for key, array in per_token.items()}
        spoilt["advantage"] = np.where(learned.any(axis=1), arrays["advantage"], poison)
        jax.tree.map(np.testing.assert_array_equal, sums_and_gradients(name, {**arrays, **spoilt}), clean)
    for gradient in clean[1].values():
        np.testing.assert_array_equal(np.asarray(gradient)[~learned], 0.0)


def test_truncated_completions_are_left_out_where_a_config_says_so():
    lengths, counted = jnp.array([3, 5, 4, 5]), jnp.array([True, True, False, True])
    within = [[1, 1, 1, 0, 0], [1] * 5, [0] * 5, [1] * 5]
    np.testing.assert_array_equal(learned_under(PRESETS["rloo"], lengths, counted, 5), np.array(within, bool))
    within[1] = within[3] = [0] * 5
    masking = PolicyLossConfig(mask_truncated=True)
    np.testing.assert_array_equal(learned_under(masking, lengths, counted, 5), np.array(within, bool))
    budgets, within[0] = jnp.array([3, 5, 5, 5]), [0] * 5
    np.testing.assert_array_equal(learned_under(masking, lengths, counted, 5, budgets), np.array(within, bool))


def test_a_buffer_of_a_given_length_costs_what_it_weighs():
    config = PolicyLossConfig(baseline="none", overlong_weight=0.5, overlong_buffer=5)
    reward, lengths = jnp.full((1, 4), 0.9), jnp.array([[4, 5, 6, 10]])
    advantage = advantages_under(config, reward, lengths, jnp.ones((1, 4), bool), 10)
    np.testing.assert_allclose(advantage, [[0.9, 0.9, 0.8, 0.4]], atol=1e-7)


def test_a_buffer_left_open_is_a_fifth_of_the_budget():
    config = PolicyLossConfig(baseline="none", overlong_weight=1.0)
    lengths = jnp.array([[16, 17, 20]])
    advantage = advantages_under(config, jnp.zeros((1, 3)), lengths, jnp.ones((1, 3), bool), 20)
    np.testing.assert_allclose(advantage, [[0.0, -0.25, -1.0]], atol=1e-7)


def test_a_buffer_longer_than_the_budget_is_refused():
    config = PolicyLossConfig(overlong_weight=0.5, overlong_buffer=11)
    with pytest.raises(ConfigError, match="overlong_buffer is 11, longer than the budget of 10 tokens"):
        advantages_under(config, jnp.zeros((1, 2)), jnp.ones((1, 2), int), jnp.ones((1, 2), bool), 10)
