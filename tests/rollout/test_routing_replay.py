"""Experts chosen while sampling are used again by the learner, in all three passes over a sequence."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import QUICK, micro, scenes

from moonseg_jax.batch import prompt_batch
from moonseg_jax.learner.policy import rollout_statistics
from moonseg_jax.model.initial import draw_parameters
from moonseg_jax.policy import Policy
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import sample_keys
from moonseg_jax.rollout.settings import Sampling

EXPERTS = 6


@functools.cache
def policy_of(grammar: str, dense_layers: int = 1) -> Policy:
    """Routed blocks over dense ones, four in all, and more experts than are all computed."""
    config = micro(EXPERTS)
    text = dataclasses.replace(config.text, layers=4, dense_layers=dense_layers)
    return Policy.from_config(
        dataclasses.replace(config, text=text, paths=dataclasses.replace(config.paths, grammar=grammar))
    )


@functools.cache
def rolled(grammar: str, record: bool = True, dense_layers: int = 1):
    """Parameters, prompts, and rollouts of nine slots."""
    policy = policy_of(grammar, dense_layers)
    params = draw_parameters(policy.shapes(), 0)
    batch = prompt_batch([scene.examples[:2] for scene in scenes(4)], policy.layout(2))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(params, batch):
        keys = sample_keys(jax.random.key(5), 2, batch.example_ids, 4)
        sampling = Sampling(group=4, temperature=0.9, slots=9, record_experts=record)
        return sample(policy.model, policy.grammar, params, batch, keys, sampling)[0]

    return params, batch, jax.device_get(run(params, batch))


@functools.cache
def learner(grammar: str, dense_layers: int = 1):
    policy = policy_of(grammar, dense_layers)
    found = functools.partial(rollout_statistics, policy.model, policy.grammar, temperature=0.9)
    return jax.jit(lambda params, batch, rollouts: found(params, batch, rollouts).log_probs, compiler_options=QUICK)


@pytest.mark.parametrize("grammar", ["polygon", "full"])
def test_log_probabilities_are_the_learners_with_and_without_replay(grammar):
    params, batch, rollouts = rolled(grammar)
    assert rollouts.experts.completion.shape[0] == 3
    for experts in (rollouts.experts, None):
        found = learner(grammar)(params, batch, dataclasses.replace(rollouts, experts=experts))
        np.testing.assert_allclose(rollouts.log_probs, found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dense_layers", [0, 4])
def test_models_of_one_kind_of_block_are_as_exact(dense_layers):
    params, batch, rollouts = rolled("polygon", dense_layers=dense_layers)
    assert rollouts.experts.completion.shape[0] == 4 - dense_layers
    found = learner("polygon", dense_layers)(params, batch, rollouts)
    np.testing.assert_allclose(rollouts.log_probs, found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["image", "prompt", "completion"])
def test_every_pass_uses_the_experts_it_is_given(part):
    params, batch, rollouts = rolled("polygon")
    shifted = (getattr(rollouts.experts, part) + 1) % EXPERTS
    others = dataclasses.replace(rollouts, experts=dataclasses.replace(rollouts.experts, **{part: shifted}))
    gap = np.abs(learner("polygon")(params, batch, others) - rollouts.log_probs)
    assert gap.max() > 1e-3


def test_replay_keeps_routing_noise_out_of_the_ratio():
    """Routers that drift between sampling and learning move the ratio less where the choice is replayed."""
    params, batch, rollouts = rolled("polygon")
    rng = np.random.default_rng(0)
    router = params["text"]["routed"]["moe"]["router"]
    drifted = jax.tree.map(lambda leaf: leaf + 3e-3 * rng.normal(size=leaf.shape).astype(np.float32), router)
    routed = {**params["text"]["routed"], "moe": {**params["text"]["routed"]["moe"], "router": drifted}}
    after = {**params, "text": {**params["text"], "routed": routed}}
    gaps = [
        np.abs(learner("polygon")(after, batch, dataclasses.replace(rollouts, experts=experts)) - rollouts.log_probs)
        for experts in (rollouts.experts, None)
    ]
    assert gaps[0].max() < 0.3 * gaps[1].max()


def test_experts_are_kept_only_on_request():
    assert rolled("polygon", record=False)[2].experts is None
    np.testing.assert_array_equal(rolled("polygon", record=False)[2].token_ids, rolled("polygon")[2].token_ids)


def test_the_gap_in_bfloat16_is_small_and_smaller_with_replay():
    policy = policy_of("polygon")
    model = dataclasses.replace(policy.model, dtype=jnp.bfloat16)
    params, batch, _ = rolled("polygon")

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(params, batch):
        keys = sample_keys(jax.random.key(5), 2, batch.example_ids, 4)
        rollouts, _ = sample(model, policy.grammar, params, batch, keys, Sampling(group=4, slots=9))
        gaps = []
        for experts in (rollouts.experts, None):
            again = dataclasses.replace(rollouts, experts=experts)
            found = rollout_statistics(model, policy.grammar, params, batch, again, temperature=1.0).log_probs
            gaps.append(jnp.abs(found - rollouts.log_probs))
        return gaps

    replayed, routed = run(params, batch)
    assert 0 < replayed.mean() < 0.02
    assert replayed.mean() <= routed.mean()
