"""The gradient step of reinforcement learning: what it pays for, what it leaves alone, what else it reports."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import QUICK, compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.learner.policy import make_old_log_probs, make_policy_step, rollout_statistics
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.learner.sft import sft_sums
from moonseg_jax.learner.state import init_state
from moonseg_jax.types import FINISH_CLOSED, Rollouts, Scored

pytestmark = pytest.mark.slow

POLICY = micro_policy()
LAYOUT = POLICY.layout(2)
ROWS = [scene.examples[:2] for scene in scenes(3)]
ROWS[2] = ROWS[2][:1]
BATCH, TARGETS = prompt_batch(ROWS, LAYOUT), target_batch(ROWS, LAYOUT)
VALID = BATCH.valid.reshape(-1)
IOU = np.array([[0.9, 0.1], [0.2, 0.4], [0.5, 0.5], [0.3, 0.8], [0.6, 0.1], [0.0, 1.0]], np.float32)
"""Of two samples per prompt; the last prompt is padding."""
COUNTED = VALID & (IOU[:, 0] != IOU[:, 1])
NO_TARGETS = TARGETS.replace(lengths=0 * TARGETS.lengths)
OPTIMIZER = optax.sgd(1e-3)


OTHER = [1, 0, 3, 2, 0, 0]
"""The prompt whose target is the second sample of each."""


@functools.cache
def compiled_statistics():
    learner = functools.partial(rollout_statistics, POLICY.model, POLICY.grammar, temperature=1.0)
    return compile_quickly(
        jax.jit(lambda params, rollouts: learner(params, BATCH, rollouts).log_probs), micro_params(), samples()
    )


@functools.cache
def samples() -> Rollouts:
    """Two samples per prompt: its own traced target and another prompt's."""
    own = [leaf.reshape(6, *leaf.shape[2:]) for leaf in (TARGETS.token_ids, TARGETS.bins, TARGETS.lengths)]
    ids, bins, lengths = (np.stack([leaf, leaf[OTHER]], axis=1).reshape(12, *leaf.shape[1:]) for leaf in own)
    return Rollouts(
        token_ids=ids, bins=bins, log_probs=np.zeros(ids.shape, np.float32), lengths=lengths,
        budgets=np.full(12, POLICY.config.paths.max_new_tokens), finish=np.full(12, FINISH_CLOSED), experts=None,
    )  # fmt: skip


WITHIN = np.arange(samples().token_ids.shape[1]) < samples().lengths[:, None]


def log_probs(params):
    return np.where(WITHIN, compiled_statistics()(params, samples()), 0.0)


LOSS = PolicyLossConfig(scale="batch-std", entropy_weight=5e-4, kl_weight=5e-3)


@functools.cache
def compiled_step(microbatches: int = 1):
    step = make_policy_step(
        POLICY.model, POLICY.grammar, POLICY.tables, OPTIMIZER, loss=LOSS, temperature=1.0, supervised_weight=0.1,
        average_decay=0.5, microbatches=microbatches,
    )  # fmt: skip
    return compile_quickly(step, fresh_state(), *inputs(IOU))


def fresh_state():
    return init_state(jax.tree.map(jnp.array, {"policy": micro_params()}), OPTIMIZER)


def inputs(iou, *, reward=None, reference=None, targets=TARGETS):
    """All a step reads beside its state; the reference defaults to the parameters themselves."""
    rollouts = samples().replace(log_probs=log_probs(micro_params()))
    scored = Scored(iou=iou.reshape(-1), reward=(iou if reward is None else reward).reshape(-1))
    return reference or micro_params(), BATCH, targets, rollouts, scored


def test_the_first_step_pays_each_sequence_its_advantage_per_token():
    _, sums = compiled_step()(fresh_state(), *inputs(IOU))
    gap = IOU[:, 0] - IOU[:, 1]
    lengths = samples().lengths.reshape(6, 2)
    gain = (gap * (lengths[:, 0] - lengths[:, 1]))[COUNTED].sum()
    spread = np.sqrt(np.mean(gap[COUNTED] ** 2))
    np.testing.assert_allclose(sums["policy_loss"], (-gain / spread, 8), rtol=1e-4)
    np.testing.assert_array_equal(sums["flat_groups"], (1, 5))
    np.testing.assert_array_equal(sums["clip_fraction"], (0, lengths[COUNTED].sum()))
    np.testing.assert_allclose(sums["mismatch_kl"][0], 0.0, atol=1e-6)
    np.testing.assert_allclose(sums["effective_sample_size"], [lengths[COUNTED].sum()] * 3, rtol=1e-6)


def test_a_step_makes_better_samples_likelier_than_worse_ones():
    state, _ = compiled_step()(fresh_state(), *inputs(IOU, targets=NO_TARGETS))
    gained = (log_probs(state.params["policy"]) - log_probs(micro_params())).sum(axis=1).reshape(6, 2)
    gap = (gained[:, 0] - gained[:, 1]) * np.sign(IOU[:, 0] - IOU[:, 1])
    assert (gap[COUNTED] > 0).sum() >= 3 and gap[COUNTED].sum() > 0.1


def test_flat_groups_and_padding_leave_the_parameters_alone():
    flat = np.where(VALID[:, None], 0.5, IOU)
    state, sums = compiled_step()(fresh_state(), *inputs(flat, targets=NO_TARGETS))
    jax.tree.map(np.testing.assert_array_equal, state.params["policy"], micro_params())
    np.testing.assert_array_equal(sums["flat_groups"], (5, 5))


@pytest.mark.parametrize(("seed", "least", "most"), [(0, 0.0, 1e-6), (1, 0.1, np.inf)])
def test_distance_from_the_reference_is_measured_per_token(seed, least, most):
    _, sums = compiled_step()(fresh_state(), *inputs(IOU, reference=micro_params(seed=seed)))
    divergence, tokens = sums["reference_kl"]
    assert least <= divergence / tokens <= most


def test_supervision_is_of_the_traced_targets():
    _, sums = compiled_step()(fresh_state(), *inputs(IOU))
    learner = functools.partial(
        sft_sums, POLICY.model, POLICY.tables, grounding=False, tokens=POLICY.config.paths.max_new_tokens
    )
    own = jax.jit(learner, compiler_options=QUICK)(params=micro_params(), batch=BATCH, targets=TARGETS)
    np.testing.assert_allclose(sums["supervised"], (own["box"][0] + own["path"][0], TARGETS.lengths.sum()), rtol=1e-4)


def test_any_number_of_micro_batches_makes_the_same_step():
    given = inputs(IOU, reference=micro_params(seed=1))
    (whole, sums), (parts, added) = (compiled_step(count)(fresh_state(), *given) for count in (1, 3))
    assert optax.global_norm(jax.tree.map(jnp.subtract, whole.params["policy"], micro_params())) > 1e-3
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), parts.params, whole.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), added, sums)


def test_log_probs_before_the_update_are_those_of_the_rows_they_stand_in():
    before = make_old_log_probs(POLICY.model, POLICY.grammar, temperature=1.0, microbatches=3)
    given = (micro_params(), BATCH, samples())
    found = np.where(WITHIN, compile_quickly(before, *given)(*given), 0.0)
    np.testing.assert_allclose(found, log_probs(micro_params()), atol=1e-4)


def test_a_reward_that_is_no_number_costs_the_step_and_nothing_else():
    reward = IOU.copy()
    reward[0, 1] = np.nan
    state, sums = compiled_step()(fresh_state(), *inputs(IOU, reward=reward))
    assert (int(state.step), int(state.skipped_steps), int(state.skipped_in_row)) == (1, 1, 1)
    assert np.isnan(sums["gradient_norm"][0])
    for params in (state.params, state.averaged):
        jax.tree.map(np.testing.assert_array_equal, params["policy"], micro_params())
    state, _ = compiled_step()(state, *inputs(IOU))
    assert (int(state.step), int(state.skipped_steps), int(state.skipped_in_row)) == (2, 1, 0)
    expected, _ = compiled_step()(fresh_state(), *inputs(IOU))
    jax.tree.map(np.testing.assert_array_equal, state.params, expected.params)


def test_rewards_of_padding_and_flat_groups_may_be_anything():
    reward = np.where(COUNTED[:, None], IOU, np.nan)
    state, sums = compiled_step()(fresh_state(), *inputs(IOU, reward=reward))
    assert int(state.skipped_steps) == 0 and np.isfinite(sums["policy_loss"][0])
