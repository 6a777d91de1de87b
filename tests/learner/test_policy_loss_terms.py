"""The parts of the policy loss: what stale samples weigh, the two KL estimators, entropy, credit, and figures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import QUICK

from moonseg_jax.learner.policy_loss import policy_loss
from moonseg_jax.learner.token_sums import WeightSums, aggregated, effective_sample_size

SETTINGS = ("ratio", "clip_low", "clip_high", "aggregation", "fixed_length", "correction_cap", "kl_estimator",
            "kl_weight", "entropy_weight")  # fmt: skip
UNCLIPPED = {"ratio": "token", "clip_low": None, "clip_high": None, "aggregation": "fixed-length"}


@functools.partial(jax.jit, static_argnames=SETTINGS, compiler_options=QUICK)
def compiled_loss(now, old, advantage, learned, **settings):
    """The gradient of the loss sum in the current log-probabilities, and all sums."""

    def loss(now):
        sums = policy_loss(now, old, advantage, learned, **settings)
        return sums.loss[0], sums

    return jax.grad(loss, has_aux=True)(now)


def loss_of(now, old, advantage, learned=None, **settings):
    learned = np.ones(np.shape(now), bool) if learned is None else np.array(learned, bool)
    arrays = (jnp.asarray(array, jnp.float32) for array in (now, old, advantage))
    settings = {key: jnp.asarray(value) if np.ndim(value) else value for key, value in settings.items()}
    return compiled_loss(*arrays, learned, **{**UNCLIPPED, **settings})


@pytest.mark.parametrize("ratio", ["token", "sequence", "none"])
def test_a_policy_that_did_not_move_shows_no_mismatch(ratio):
    same = -np.random.default_rng(0).uniform(0.1, 3.0, (4, 5)).astype(np.float32)
    learned = np.arange(5) < np.array([[5], [2], [0], [3]])
    clips = {} if ratio == "none" else {"clip_low": 1e-6, "clip_high": 1e-6}
    _, sums = loss_of(same, same, [1.0, -1.0, 1.0, 2.0], learned, ratio=ratio, reference_log_probs=same, **clips)
    assert sums.clipped == sums.mismatch_kl == sums.reference_kl == (0.0, 10.0)
    assert sums.importance == WeightSums(10.0, 10.0, 10.0)
    assert effective_sample_size(sums.importance) == 1.0
    if ratio != "none":
        np.testing.assert_allclose(sums.loss, (-(5 * 1 + 2 * -1 + 3 * 2), 3))


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.5, 1.0, 1.3, 0.0),
        (1.5, -1.0, -1.5, -1.5),
        (0.5, 1.0, 0.5, 0.5),
        (0.5, -1.0, -0.8, 0.0),
        (1.25, 1.0, 1.25, 1.25),
    ],
)
def test_clipping_stops_only_steps_that_went_far_enough(ratio, advantage, gain, slope):
    gradient, sums = loss_of([[np.log(ratio)]], [[0.0]], [advantage], clip_low=0.2, clip_high=0.3)
    np.testing.assert_allclose([sums.loss[0], gradient[0, 0]], [-gain, -slope], atol=1e-6)
    assert sums.clipped == (float(not 0.8 <= ratio <= 1.3), 1.0)


def test_figures_tell_how_far_the_policy_moved_from_the_sampler():
    old = np.log([[0.2, 0.5, 0.4]])
    _, sums = loss_of(old + np.log([[2.0, 1.0, 0.5]]), old, [1.0], clip_low=0.6, clip_high=0.6)
    np.testing.assert_allclose(sums.clipped, (1, 3))
    np.testing.assert_allclose(sums.mismatch_kl, ((1 - np.log(2)) + 0 + (np.log(2) - 0.5), 3), rtol=1e-5)
    np.testing.assert_allclose(sums.importance, (3.5, 5.25, 3), rtol=1e-6)
    np.testing.assert_allclose(effective_sample_size(sums.importance), 3.5**2 / (3 * 5.25), rtol=1e-6)


def test_the_mismatch_of_nearly_equal_policies_is_not_lost_to_rounding():
    old = np.full((1, 4), -1.0, np.float32)
    now = old + np.float32(2**-12)
    _, sums = loss_of(now, old, [1.0])
    np.testing.assert_allclose(sums.mismatch_kl[0], 4 * 2**-25, rtol=1e-3)


def test_effective_sample_size_comes_from_sums_of_all_parts():
    parts = [WeightSums(jnp.float32(4.0), jnp.float32(8.0), jnp.float32(3)),
             WeightSums(jnp.float32(2.0), jnp.float32(4.0), jnp.float32(1))]  # fmt: skip
    whole = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    np.testing.assert_allclose(effective_sample_size(whole), 36 / (4 * 12))
    np.testing.assert_allclose(effective_sample_size(WeightSums(*jnp.zeros(3))), 0.0)


def test_stale_samples_weigh_what_the_old_policy_makes_of_them_up_to_the_cap():
    behaviour = np.log([[0.1, 0.2, 0.5], [0.4, 0.4, 0.4]])
    old = np.log([[0.4, 0.3, 0.25], [0.4, 0.2, 0.4]])
    now = old + np.log([[1.1, 1.0, 1.0], [1.0, 1.0, 0.5]])
    gradient, sums = loss_of(now, old, [1.0, -2.0], behaviour_log_probs=behaviour, correction_cap=2.0)
    # Weights 4 → 2, 1.5, .5 and 1, .5, 1; times the ratios and advantages.
    slopes = np.array([[-2.2, -1.5, -0.5], [2.0, 1.0, 1.0]])
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5)
    np.testing.assert_allclose(sums.loss, (slopes.sum(), 2), rtol=1e-5)
    np.testing.assert_allclose(sums.capped, (1, 6))
    # The mismatch is that of the current policy and the one that sampled: ratios 4.4, 1.5, .5 and 1, .5, .5.
    np.testing.assert_allclose(sums.importance, (8.4, 4.4**2 + 1.5**2 + 1 + 0.75, 6), rtol=1e-5)


def test_without_a_cap_staleness_is_reported_and_not_corrected():
    old, behaviour = np.log([[0.4, 0.3]]), np.log([[0.1, 0.3]])
    gradient, sums = loss_of(old, old, [1.0], behaviour_log_probs=behaviour)
    np.testing.assert_allclose(gradient, [[-1.0, -1.0]])
    assert sums.capped is None
    np.testing.assert_allclose(sums.importance, (5, 17, 2), rtol=1e-5)


def test_stale_sequences_are_corrected_as_sequences_where_ratios_are():
    behaviour, old = np.log([[0.1, 0.2], [0.1, 0.1]]), np.log([[0.4, 0.2], [0.8, 0.2]])
    gradient, sums = loss_of(
        old, old, [1.0, 1.0], ratio="sequence", behaviour_log_probs=behaviour, correction_cap=3.0,
        aggregation="sequence-mean",
    )  # fmt: skip
    # Geometric means: √(4 × 1) = 2 and √(8 × 2) = 4, capped at 3.
    np.testing.assert_allclose(gradient, [[-1.0, -1.0], [-1.5, -1.5]], rtol=1e-5)
    np.testing.assert_allclose(sums.loss, (-5, 2), rtol=1e-5)
    np.testing.assert_allclose(sums.capped, (2, 4))


def test_the_score_function_is_corrected_for_all_that_happened_since_sampling():
    behaviour, now = np.log([[0.1, 0.4]]), np.log([[0.3, 0.2]])
    gradient, sums = loss_of(
        now, np.full((1, 2), -9.0), [2.0], ratio="none", behaviour_log_probs=behaviour, correction_cap=2.0
    )  # fmt: skip
    np.testing.assert_allclose(gradient, [[-4.0, -1.0]], rtol=1e-5)
    np.testing.assert_allclose(sums.loss, (-(4 * np.log(0.3) + np.log(0.2)), 1), rtol=1e-5)
    np.testing.assert_allclose(sums.capped, (1, 2))


def test_an_injected_completion_weighs_as_much_as_the_old_policy_believed_in_it():
    old = np.log([[0.1, 0.5]])
    gradient, _ = loss_of(old, old, [2.0], behaviour_log_probs=np.zeros((1, 2)), correction_cap=2.0)
    np.testing.assert_allclose(gradient, [[-0.2, -1.0]], rtol=1e-5)


def test_token_advantages_pay_each_token_its_own():
    old, credit = np.log([[0.5, 0.2, 0.3]]), [[1.0, -1.0, 0.5]]
    now = old + np.log([[2.0, 1.0, 0.5]])
    gradient, sums = loss_of(now, old, credit)
    np.testing.assert_allclose(gradient, [[-2.0, 1.0, -0.25]], rtol=1e-5)
    # The sequence's ratio is (2 × 1 × .5)^(1/3) = 1, with the interval 1 ± .1 around it.
    gradient, sums = loss_of(now, old, credit, ratio="sequence", clip_low=0.1, clip_high=0.1)
    np.testing.assert_allclose(gradient, [[-1.0, 1.0, -0.5]], rtol=1e-5)
    np.testing.assert_allclose(sums.clipped, (0, 3))


def log_softmax(logits):
    return np.array(logits) - np.log(np.sum(np.exp(logits)))


NOW, OLD, REFERENCE, STALE = (
    log_softmax(logits)
    for logits in ([0.3, -0.7, 1.1, 0.0], [0.1, -0.2, 0.8, 0.4], [-0.5, 0.4, 0.9, 0.2], [1.0, 0.2, -0.4, 0.1])
)
"""Four policies over a vocabulary of four tokens."""


def expected_gradient(sampler, **settings):
    """Gradient, in the current policy's logits, of the loss expected over one token drawn from `sampler`."""
    rows = {key: value[:, None] if np.ndim(value) else value for key, value in settings.items()}
    slopes, _ = loss_of(NOW[:, None], OLD[:, None], np.zeros(4), reference_log_probs=REFERENCE[:, None], **rows)
    slopes_of_log_softmax = np.eye(4) - np.exp(NOW)
    return (np.exp(sampler) * np.ravel(slopes)) @ slopes_of_log_softmax


KL = np.sum(np.exp(NOW) * (NOW - REFERENCE))
KL_GRADIENT = np.exp(NOW) * (NOW - REFERENCE - KL)


def test_the_gradient_of_k1_is_in_expectation_that_of_the_kl():
    assert np.abs(KL_GRADIENT).max() > 0.1
    gradient = expected_gradient(OLD, kl_estimator="k1", kl_weight=0.5)
    np.testing.assert_allclose(gradient, 0.5 * KL_GRADIENT, atol=1e-6)


def test_the_gradient_of_k1_stays_right_under_a_correction_for_staleness():
    gradient = expected_gradient(STALE, kl_estimator="k1", kl_weight=1.0, behaviour_log_probs=STALE, correction_cap=1e3)
    np.testing.assert_allclose(gradient, KL_GRADIENT, atol=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_both_estimators_mean_the_kl_to_the_reference(estimator):
    estimates = [
        loss_of([[now]], [[now]], [0.0], reference_log_probs=[[reference]], kl_estimator=estimator)[1].reference_kl[0]
        for now, reference in zip(NOW, REFERENCE)
    ]
    np.testing.assert_allclose(np.sum(np.exp(NOW) * estimates), KL, atol=1e-6)


def test_kl_and_entropy_are_aggregated_with_the_surrogate():
    learned = [[1, 1, 1], [1, 0, 0]]
    old = np.log([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    reference = old + np.log([[2.0, 1.0, 1.0], [0.5, 9.0, 9.0]])
    entropy = np.array([[0.3, 0.6, 0.9], [0.4, 9.0, 9.0]], np.float32)
    kl, kl_other = 1 - np.log(2), np.log(2) - 0.5
    for aggregation, total, count in [
        ("token-mean", -5 + 0.1 * (kl + kl_other) - 0.2 * 2.2, 4),
        ("sequence-mean", -3 + 0.1 * (kl / 3 + kl_other) - 0.2 * (0.6 + 0.4), 2),
        ("fixed-length", (-5 + 0.1 * (kl + kl_other) - 0.2 * 2.2) / 8, 2),
    ]:
        _, sums = loss_of(
            old, old, [1.0, 2.0], learned, aggregation=aggregation, fixed_length=8, reference_log_probs=reference,
            kl_weight=0.1, entropy=entropy, entropy_weight=0.2,
        )  # fmt: skip
        np.testing.assert_allclose(sums.loss, (total, count), rtol=1e-5)
        np.testing.assert_allclose(sums.entropy, (2.2, 4), rtol=1e-6)
        np.testing.assert_allclose(sums.reference_kl, (kl + kl_other, 4), rtol=1e-5)


def test_aggregations_on_an_example_worked_by_hand():
    values = jnp.array([[1.0, 2.0, 6.0], [4.0, jnp.nan, jnp.inf], [jnp.nan] * 3])
    learned = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    assert aggregated(values, learned, "token-mean") == (13.0, 4.0)
    assert aggregated(values, learned, "sequence-mean") == (7.0, 2.0)
    assert aggregated(values, learned, "fixed-length", 2.0) == (6.5, 2.0)


@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean", "fixed-length"])
def test_a_batch_without_learned_tokens_has_no_loss_and_no_gradient(aggregation):
    gradient, sums = loss_of([[-1.0, np.nan]], [[-2.0, np.nan]], [np.nan], [[0, 0]], aggregation=aggregation)
    np.testing.assert_array_equal(gradient, 0.0)
    assert sums.loss == (0.0, 0.0)
    assert effective_sample_size(sums.importance) == 0.0


def test_a_learned_token_that_is_no_number_is_not_hidden():
    gradient, sums = loss_of([[-1.0, np.nan]], [[-1.0, -1.0]], [1.0])
    assert np.isnan(sums.loss[0]) and np.isnan(sums.mismatch_kl[0]) and np.isnan(gradient[0, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correction_cap": 2.0}, "correction_cap needs behaviour_log_probs"),
        ({"kl_weight": 0.1}, "kl_weight needs reference_log_probs"),
        ({"entropy_weight": 0.1}, "entropy_weight needs entropy"),
        ({"entropy": np.zeros((2, 4))}, r"\(2, 3\); one has \(2, 4\)"),
        ({"advantage": np.zeros(3)}, r"advantage per sequence or per token, not \(2, 3\) and \(3,\)"),
        ({"learned": np.ones((2, 1), bool)}, r"\(2, 3\); one has \(2, 1\)"),
    ],
)
def test_arrays_that_do_not_fit_or_are_missing_are_refused(changes, message):
    arrays = {"log_probs": jnp.zeros((2, 3)), "old_log_probs": jnp.zeros((2, 3)), "advantage": jnp.zeros(2),
              "learned": jnp.ones((2, 3), bool)}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        policy_loss(**{**arrays, **UNCLIPPED, **changes})
