"""From prompts to scored groups in one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tiny_models import compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.learner.policy import make_policy_step
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.learner.state import init_state
from moonseg_jax.metrics import boundary_iou
from moonseg_jax.paths.raster import coverage
from moonseg_jax.reward_compare.scoring import rewards_of
from moonseg_jax.rewards import RewardSpec, WeightedTerm, mask_iou
from moonseg_jax.rollout.groups import make_rollout
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.rollout.stored import StoredRollouts, load_rollouts, sampled

POLICY, GROUP = micro_policy(), 3
ROWS = [scene.examples[:2] for scene in scenes(2)]
BATCH = prompt_batch([ROWS[0], ROWS[1][:1]], POLICY.layout(2))
TARGETS = target_batch([ROWS[0], ROWS[1][:1]], POLICY.layout(2))
TARGET_LENGTHS = TARGETS.lengths // 2
BATCH = BATCH.replace(ground_truth=~BATCH.ground_truth)
"""The background is the target: random paths overlap with it."""
REWARD = RewardSpec(terms=(WeightedTerm(term="iou"), WeightedTerm(term="excess_tokens", weight=((0, 0.1), (10, 0.3)))))
"""IoU less a price of what exceeds the traced target, which rises from step 0 to step 10."""


@functools.cache
def rollout():
    made = make_rollout(POLICY, Sampling(group=GROUP), reward=REWARD, seed=0)
    return compile_quickly(made, micro_params(), BATCH, TARGET_LENGTHS, 0)


def roll(step: int):
    return jax.device_get(rollout()(micro_params(), BATCH, TARGET_LENGTHS, step))


def test_figures_are_sums_over_samples_of_real_prompts():
    rollouts, scored, drawn, sums = roll(0)
    real = np.repeat(BATCH.valid.reshape(-1), GROUP)
    assert real.sum() == 3 * GROUP
    np.testing.assert_allclose(sums["sampled_iou"], (scored.iou[real].sum(), 9), rtol=1e-6)
    np.testing.assert_allclose(sums["tokens"], (rollouts.lengths[real].sum(), 9))
    np.testing.assert_allclose(sums["reward"], (scored.reward[real].sum(), 9), rtol=1e-5)
    assert (scored.iou[real] > 0).sum() > 4
    np.testing.assert_array_equal(drawn.box[:, :2] * 32, rollouts.bins[:, :2, 0])


def test_figures_have_every_term_and_the_boundary_whatever_the_reward_is():
    _, scored, drawn, sums = roll(0)
    real = np.repeat(BATCH.valid.reshape(-1), GROUP)
    assert {name for name in sums if name.startswith("term_")} == {"term_iou", "term_excess_tokens"}
    for name in ("iou", "excess_tokens"):
        np.testing.assert_allclose(sums[f"term_{name}"], (scored.terms[name][real].sum(), 9), rtol=1e-5)
    masks = np.asarray(coverage(drawn.edges, 48)) > 0.5
    truth = np.repeat(BATCH.ground_truth.reshape(-1, 48, 48), GROUP, axis=0)
    near = [boundary_iou(*pair, 2) for pair in zip(masks[real], truth[real])]
    np.testing.assert_allclose(sums["boundary_iou"], (np.sum(near), 9), rtol=1e-5)


def test_iou_is_summed_by_the_size_of_the_object_too():
    """The background of every scene is large: more than 3 % of the image."""
    sums = roll(0)[3]
    np.testing.assert_array_equal(sums["iou_large"], sums["sampled_iou"])
    assert sums["iou_small"] == sums["iou_medium"] == (0, 0)


def test_the_reward_reads_the_targets_and_its_schedule_the_step():
    for step, weight in ((0, 0.1), (5, 0.2), (50, 0.3)):
        rollouts, scored, drawn, _ = roll(step)
        truth = np.repeat(BATCH.ground_truth.reshape(-1, 48, 48), GROUP, axis=0)
        np.testing.assert_array_equal(scored.iou, mask_iou(coverage(drawn.edges, 48), truth))
        reference = np.maximum(np.repeat(TARGET_LENGTHS.reshape(-1), GROUP), 1)
        excess = np.clip(rollouts.lengths / reference - 1, 0, 1)
        assert len(np.unique(excess[:9])) > 2
        np.testing.assert_allclose(scored.reward, scored.iou - weight * excess, atol=1e-6)


def test_stored_rollouts_earn_the_same_again(tmp_path):
    rollouts, scored, drawn, _ = roll(5)
    batch = sampled(BATCH, TARGET_LENGTHS, rollouts, drawn)
    stored = load_rollouts(StoredRollouts.of_batch(5, batch).save(tmp_path / "rollouts.npz"))
    iou, rewards = rewards_of(stored, {"this": REWARD})
    real = np.repeat(BATCH.valid.reshape(-1), GROUP)
    np.testing.assert_array_equal(iou.reshape(-1), scored.iou[real])
    np.testing.assert_allclose(rewards["this"].reshape(-1), scored.reward[real], atol=1e-6)


def test_noise_changes_with_the_policy_version():
    first, again, later = (roll(version)[0].token_ids for version in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    real = np.repeat(BATCH.valid.reshape(-1), GROUP)
    assert not np.all(first == later, axis=1)[real].any()


def test_one_program_from_prompts_to_rewards_calls_nobody_outside():
    made = make_rollout(POLICY, Sampling(group=GROUP, slots=4), reward=REWARD, seed=0)
    program = made.lower(micro_params(), BATCH, TARGET_LENGTHS, 0).as_text()
    assert program.count("func.func public @main") == 1
    assert "callback" not in program and "infeed" not in program and "outfeed" not in program


def test_bfloat16_rollouts_are_learned_from_with_a_small_mismatch():
    policy = POLICY.computing_in("bfloat16")
    made = make_rollout(policy, Sampling(group=GROUP, slots=4), reward=REWARD, seed=0)
    prompts = (micro_params(), BATCH, TARGET_LENGTHS, 0)
    rollouts, scored, *_ = compile_quickly(made, *prompts)(*prompts)
    update = make_policy_step(
        policy.model, policy.grammar, policy.tables, optax.sgd(1e-3), loss=PolicyLossConfig(), temperature=1.0,
        supervised_weight=0.0, average_decay=0.9,
    )  # fmt: skip
    state = init_state(jax.tree.map(jnp.array, {"policy": micro_params()}), optax.sgd(1e-3))
    inputs = (state, None, BATCH, TARGETS, rollouts, scored)
    state, sums = compile_quickly(update, *inputs)(*inputs)
    mismatch, tokens = sums["mismatch_kl"]
    assert 0 < mismatch / tokens < 1e-3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
