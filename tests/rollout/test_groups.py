"""From prompts to scored groups in one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tiny_models import compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch
from moonseg_jax.learner.policy import make_policy_step
from moonseg_jax.learner.state import init_state
from moonseg_jax.rollout.groups import make_rollout
from moonseg_jax.rollout.settings import Sampling

POLICY, GROUP = micro_policy(), 3
ROWS = [scene.examples[:2] for scene in scenes(2)]
BATCH = prompt_batch([ROWS[0], ROWS[1][:1]], POLICY.layout(2))
BATCH = BATCH.replace(ground_truth=~BATCH.ground_truth)
"""The background is the target: random paths overlap with it."""


@functools.cache
def rollout():
    made = make_rollout(POLICY, Sampling(group=GROUP), length_penalty=0.01, seed=0)
    return compile_quickly(made, micro_params(), BATCH, 0)


def test_figures_are_sums_over_samples_of_real_prompts():
    rollouts, scored, drawn, sums = jax.device_get(rollout()(micro_params(), BATCH, 0))
    real = np.repeat(BATCH.valid.reshape(-1), GROUP)
    assert real.sum() == 3 * GROUP
    np.testing.assert_allclose(sums["sampled_iou"], (scored.iou[real].sum(), 9), rtol=1e-6)
    np.testing.assert_allclose(sums["tokens"], (rollouts.lengths[real].sum(), 9))
    np.testing.assert_allclose(scored.reward, scored.iou - 0.01 * rollouts.lengths, rtol=1e-6)
    np.testing.assert_allclose(sums["reward"], (scored.reward[real].sum(), 9), rtol=1e-5)
    assert (scored.iou[real] > 0).sum() > 4
    np.testing.assert_array_equal(drawn.box[:, :2] * 32, rollouts.bins[:, :2, 0])


def test_noise_changes_with_the_policy_version():
    first, again, later = (rollout()(micro_params(), BATCH, version)[0].token_ids for version in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    real = np.repeat(BATCH.valid.reshape(-1), GROUP)
    assert not np.all(first == later, axis=1)[real].any()


def test_one_program_from_prompts_to_rewards_calls_nobody_outside():
    made = make_rollout(POLICY, Sampling(group=GROUP, slots=4), length_penalty=0.0, seed=0)
    program = made.lower(micro_params(), BATCH, 0).as_text()
    assert program.count("func.func public @main") == 1
    assert "callback" not in program and "infeed" not in program and "outfeed" not in program


def test_bfloat16_rollouts_are_learned_from_with_a_small_mismatch():
    policy = POLICY.computing_in("bfloat16")
    made = make_rollout(policy, Sampling(group=GROUP, slots=4), length_penalty=0.0, seed=0)
    rollouts, scored, *_ = compile_quickly(made, micro_params(), BATCH, 0)(micro_params(), BATCH, 0)
    update = make_policy_step(
        policy.model, policy.grammar, policy.tables, optax.sgd(1e-3), temperature=1.0, baseline="leave-one-out",
        clip_low=0.2, clip_high=0.2, entropy_weight=0.0, kl_weight=0.0, supervised_weight=0.0, average_decay=0.9,
    )  # fmt: skip
    state = init_state(jax.tree.map(jnp.array, {"policy": micro_params()}), optax.sgd(1e-3))
    inputs = (state, None, BATCH, None, rollouts, scored)
    state, sums = compile_quickly(update, *inputs)(*inputs)
    mismatch, tokens = sums["mismatch_kl"]
    assert 0 < mismatch / tokens < 1e-3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
