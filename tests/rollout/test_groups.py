"""From prompts to scored groups in one program."""

import functools

import jax
import numpy as np
from tiny_models import compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch
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
