"""Factors applied to rows: the same numbers as matrices merged before the step, without matrices being made."""

import functools

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from tiny_models import QUICK, compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.learner.policy import rollout_statistics
from moonseg_jax.learner.sft import sft_sums
from moonseg_jax.learner.trainable import LoraConfig, Trainable
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import sample_keys
from moonseg_jax.rollout.settings import Sampling

EXPERTS = 6
"""Of which two are used: rows are sorted by expert."""
LORA = Trainable(lora=LoraConfig(rank=8, alpha=16.0))


class MergedFirst(Trainable):
    """The reference: whole matrices with factors added, made inside the step, so that gradients reach them."""

    def whole(self, trained, frozen):
        return self.merged(trained, frozen)


MERGED_FIRST = MergedFirst(lora=LORA.lora)


@functools.cache
def trained_and_frozen():
    """Factors as they are after some training: B is no longer zero."""
    trained, frozen = LORA.divide(micro_params(EXPERTS), seed=3)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape).astype(np.float32) * 0.1, trained), frozen


@functools.cache
def batch():
    rows = [list(scene.examples[:2]) for scene in scenes(2)]
    layout = micro_policy(EXPERTS).layout(2)
    return prompt_batch(rows, layout), target_batch(rows, layout)


@functools.cache
def traced(trainable, remat):
    """Loss and gradients of a supervised batch, with respect to what is trained."""
    policy = micro_policy(EXPERTS).rematerialising(remat)

    def loss(trained, frozen):
        params = trainable.whole(trained, frozen)
        sums = sft_sums(policy.model, policy.tables, params, False, *batch(), policy.config.paths.max_new_tokens)
        return sum(total / count for total, count in sums.values())

    return jax.jit(jax.value_and_grad(loss)).trace(*trained_and_frozen())


OURS, REFERENCE = (LORA, "blocks"), (MERGED_FIRST, "none")


def test_loss_and_gradients_of_factors_are_those_of_merged_matrices():
    (value, found), (expected, gradient) = (
        traced(*one).lower().compile(compiler_options=QUICK)(*trained_and_frozen()) for one in (OURS, REFERENCE)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(gradient), strict=True
    ):  # fmt: skip
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path))
        assert np.abs(other).max() > 1e-3


def test_no_gradient_of_a_frozen_matrix_is_made():
    _, frozen = trained_and_frozen()
    up = frozen["text"]["routed"]["moe"]["up"].shape
    qkv = frozen["text"]["routed"]["attn"]["qkv"]["kernel"].shape
    for shape in (up, qkv):
        assert made(traced(*REFERENCE).jaxpr.jaxpr, shape) > 0
        assert made(traced(*OURS).jaxpr.jaxpr, shape) == 0


def made(jaxpr: Jaxpr, shape) -> int:
    """How many equations, those of inner programs included, make an array of a stack's or of a layer's shape."""
    count = 0
    for equation in jaxpr.eqns:
        inner = [value for value in equation.params.values() if isinstance(value, (ClosedJaxpr, Jaxpr))]
        for one in inner:
            count += made(one.jaxpr if isinstance(one, ClosedJaxpr) else one, shape)
        if equation.primitive.name in ("dot_general", "add_any", "transpose", "scatter-add", "mul", "add"):
            count += sum(tuple(out.aval.shape) in (shape, shape[1:]) for out in equation.outvars)
    return count


def test_samples_have_the_log_probabilities_that_the_learner_gives_them():
    policy, params = micro_policy(EXPERTS), LORA.whole(*trained_and_frozen())
    prompts, _ = batch()

    def run(params, prompts):
        keys = sample_keys(jax.random.key(7), 0, prompts.example_ids, 2)
        sampling = Sampling(group=2, temperature=0.9, slots=3)
        return sample(policy.model, policy.grammar, params, prompts, keys, sampling)[0]

    rollouts = compile_quickly(jax.jit(run), params, prompts)(params, prompts)
    learner = functools.partial(rollout_statistics, policy.model, policy.grammar, temperature=0.9)
    recompute = compile_quickly(jax.jit(learner), params, prompts, rollouts)
    np.testing.assert_allclose(
        rollouts.log_probs, recompute(params, prompts, rollouts).log_probs, rtol=0, atol=1e-5
    )  # fmt: skip
    untrained = LORA.whole(*LORA.divide(micro_params(EXPERTS)))
    without = recompute(untrained, prompts, rollouts).log_probs
    assert np.abs(rollouts.log_probs - without).max() > 1e-2
