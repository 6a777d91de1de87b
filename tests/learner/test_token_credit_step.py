"""Rewards on tokens, from samples and a rescue to the gradient step in micro-batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tiny_models import QUICK, compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.learner.credit import credit
from moonseg_jax.learner.injection import make_injection
from moonseg_jax.learner.policy import make_policy_step
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.learner.state import init_state
from moonseg_jax.rewards.shapes import shape
from moonseg_jax.rollout.score import NEAR_BOUNDARY
from moonseg_jax.types import FINISH_CLOSED, Rollouts, Scored

POLICY, GROUP, LOSS = micro_policy(), 2, PolicyLossConfig()
TOKENS = POLICY.config.paths.max_new_tokens
ROWS = [scene.examples[:2] for scene in scenes(2)]
BATCH, TARGETS = prompt_batch(ROWS, POLICY.layout(2)), target_batch(ROWS, POLICY.layout(2))
IOU = np.array([[0.0, 0.05], [0.4, 0.7], [0.9, 0.2], [0.3, 0.3]], np.float32)
"""Hopeless, two with something to compare, flat."""


def rolled() -> tuple[Rollouts, Scored]:
    """Targets of other prompts, with a reward at any token."""
    ids, bins, lengths = (
        leaf.reshape(4, *leaf.shape[2:])[[1, 2, 0, 2, 0, 1, 3, 3]] for leaf in jax.tree.leaves(TARGETS)
    )
    rng = np.random.default_rng(0)
    earned = rng.normal(size=ids.shape).astype(np.float32) * (np.arange(TOKENS) < lengths[:, None])
    terms = {one.label: IOU.reshape(-1) for one in (*shape("iou").terms, NEAR_BOUNDARY)}
    scored = Scored(iou=IOU.reshape(-1), reward=earned.sum(axis=1), terms=terms, token_reward=earned)
    return Rollouts(
        token_ids=ids, bins=bins, log_probs=np.zeros(ids.shape, np.float32), lengths=lengths,
        budgets=np.full(8, TOKENS), finish=np.full(8, FINISH_CLOSED), experts=None,
    ), scored  # fmt: skip


@functools.cache
def taught() -> tuple[Rollouts, Scored]:
    inject = make_injection(POLICY, below=0.1, reward=shape("iou"))
    inputs = (None, BATCH, TARGETS, *rolled(), 0)
    return jax.device_get(compile_quickly(inject, *inputs)(*inputs))[:2]


def test_a_given_path_earns_its_whole_reward_at_its_end_and_samples_keep_theirs():
    rollouts, scored = taught()
    groups = scored.token_reward.reshape(4, GROUP + 1, TOKENS)
    np.testing.assert_array_equal(groups[:, :GROUP].reshape(8, TOKENS), rolled()[1].token_reward)
    given = int(rollouts.lengths[GROUP])
    assert given > 0 and scored.reward[GROUP] > 0.6
    np.testing.assert_array_equal(groups[0, GROUP], np.where(np.arange(TOKENS) == given - 1, scored.reward[GROUP], 0))
    assert not groups[1:, GROUP].any(), "no other group is hopeless"


def test_every_token_of_every_micro_batch_is_paid_its_own_advantage():
    """Samplers are made up so that every ratio is clipped: up to 1.2 where the advantage is positive, down to .8 where
    it is negative. Were a token paid another one's advantage, a ratio of e^60 would show."""
    rollouts, scored = taught()
    credited = jax.jit(lambda *rows: credit(LOSS, BATCH, *rows, TOKENS, POLICY.tables), compiler_options=QUICK)(
        rollouts, scored
    )
    advantage = np.asarray(credited.advantage)
    expected = -(np.where(advantage > 0, 1.2, 0.8) * advantage)[credited.learned].sum()
    rollouts = rollouts.replace(log_probs=np.where(advantage > 0, -60.0, 5.0).astype(np.float32))

    step = make_policy_step(
        POLICY.model, POLICY.grammar, POLICY.tables, optax.sgd(1e-3), loss=LOSS, temperature=1.0,
        supervised_weight=0.0, average_decay=0.5, microbatches=2,
    )  # fmt: skip
    state = init_state(jax.tree.map(jnp.array, {"policy": micro_params()}), optax.sgd(1e-3))
    inputs = (state, None, BATCH, TARGETS, rollouts, scored)
    _, sums = compile_quickly(step, *inputs)(*inputs)
    np.testing.assert_allclose(sums["policy_loss"], (expected, 7), rtol=1e-4)
    np.testing.assert_array_equal(sums["flat_groups"], (1, 4))
    assert abs(expected) > 0.5 and np.ptp(advantage[0][: rollouts.lengths[0]]) > 0.1
