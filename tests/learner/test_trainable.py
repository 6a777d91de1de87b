"""Frozen parts, low-rank factors, moments in bfloat16, blocks computed again, micro-batches: less memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.config import ConfigError
from moonseg_jax.learner import trainable as trainable_module
from moonseg_jax.learner.optimizers import OptimizerConfig, make_optimizer
from moonseg_jax.learner.sft import make_sft_step
from moonseg_jax.learner.state import init_state
from moonseg_jax.learner.trainable import LoraConfig, Trainable
from moonseg_jax.partition import partition_spec
from moonseg_jax.policy import Policy

RATE = 0.1
SGD = optax.sgd(RATE)
"""The change of the parameters is the gradient: nothing normalises a difference away."""
LORA = Trainable(lora=LoraConfig(rank=8, alpha=16.0))


def batch(images=4):
    rows = [list(scene.examples[:2]) for scene in scenes(images)]
    layout = micro_policy().layout(2)
    return prompt_batch(rows, layout), target_batch(rows, layout)


def sft_step(optimizer, *, remat="none", **settings):
    policy = micro_policy().rematerialising(remat)
    return make_sft_step(
        policy.model, policy.tables, optimizer, tokens=24, box_weight=2.0, box_distance_weight=3.0,
        path_distance_weight=2.0, heat_weight=0.5, words_weight=0.7, average_decay=0.9, **settings,
    )  # fmt: skip


@functools.cache
def steps_of(trainable=None, **settings):
    """State and sums after each of three steps on one batch."""
    trainable = trainable or Trainable()
    trained, frozen = trainable.divide(micro_params(), seed=3)
    state = init_state({"policy": trained}, SGD, frozen)
    step = sft_step(SGD, trainable=trainable, **settings)
    run = compile_quickly(step, state, *batch())
    found = []
    for _ in range(3):
        state, sums = run(state, *batch())
        found.append(jax.device_get((state, sums)))
    return found


def assert_trees_close(found, expected, tolerance):
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path))


def test_a_frozen_encoder_stays_and_everything_else_takes_the_same_step():
    frozen, everything = steps_of(Trainable(freeze=("vision",))), steps_of()
    state, _ = frozen[-1]
    assert_trees_close(state.frozen, {"vision": micro_params()["vision"]}, 0)
    assert set(state.params["policy"]) == {"text", "region"} == set(state.averaged["policy"])
    for name in ("text", "region"):
        assert_trees_close(frozen[0][0].params["policy"][name], everything[0][0].params["policy"][name], 1e-6)


def test_what_is_frozen_has_no_moments():
    trained, _ = Trainable(freeze=("vision",)).divide(micro_params())
    moments = make_optimizer(OptimizerConfig(name="adamw"), 10).init({"policy": trained})
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(moments)]
    assert any("text" in name for name in names) and not any("vision" in name for name in names)


def test_factors_change_nothing_at_first_and_only_they_are_trained():
    trained, frozen = LORA.divide(micro_params(), seed=3)
    assert_trees_close(LORA.merged(trained, frozen), micro_params(), 0)
    names = sorted(jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(trained))
    assert len(names) == 12 and all("lora_" in name for name in names)
    (_, losses), _, (last, later) = steps_of(LORA)
    assert_trees_close(last.frozen, micro_params(), 0)
    assert later["path"][0] < losses["path"][0]
    assert np.abs(last.params["policy"]["factors"]["text"]["routed"]["moe"]["up"]["lora_b"]).max() > 0
    assert losses["path"][0] == pytest.approx(steps_of()[0][1]["path"][0], rel=1e-6)


def test_what_samples_shares_the_frozen_matrices():
    trained, frozen = jax.device_put(LORA.divide(micro_params(), seed=3))
    params = LORA.whole(trained, frozen)
    plain, base = (tree["text"]["routed"]["attn"]["qkv"] for tree in (params, frozen))
    assert plain["kernel"] is base["kernel"] and set(plain) == {*base, "kernel_factors"}


def test_merged_factors_are_what_the_paper_says():
    state, _ = steps_of(LORA)[-1]
    merged = LORA.merged(state.params["policy"], state.frozen)["text"]["routed"]["attn"]["qkv"]["kernel"]
    pair = state.params["policy"]["factors"]["text"]["routed"]["attn"]["qkv"]["kernel"]
    base = micro_params()["text"]["routed"]["attn"]["qkv"]["kernel"]
    expected = base + 16.0 / 8 * np.einsum("lir,lro->lio", pair["lora_a"], pair["lora_b"])
    np.testing.assert_allclose(merged, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(
        LORA.merged(state.params["policy"], state.frozen)["text"]["head"]["kernel"],
        micro_params()["text"]["head"]["kernel"],
    )


def test_a_base_in_bfloat16_takes_half_the_memory(monkeypatch):
    monkeypatch.setattr(trainable_module, "SMALLEST_SPLIT", 0)
    half = Trainable(lora=LoraConfig(rank=8, base_dtype="bfloat16"))
    _, frozen = half.divide(micro_params())
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (frozen, micro_params())]
    assert sizes[0] * 2 == sizes[1]


def test_large_factors_are_split_like_their_matrices():
    sizes = {"data": 1, "fsdp": 8, "expert": 4, "tensor": 1}
    up = partition_spec("policy/factors/text/routed/moe/up/lora_a", (20, 64, 2048, 32), sizes)
    assert tuple(up) == (None, "expert", "fsdp", None)
    beside = partition_spec("text/routed/moe/up_factors/lora_a", (20, 64, 2048, 32), sizes)
    assert up == beside
    back = partition_spec("policy/factors/text/routed/attn/proj/kernel/lora_b", (20, 32, 2048), sizes)
    assert tuple(back) == (None, None, ("fsdp", "expert"))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_in_bfloat16_take_half_and_steps_stay_near(name):
    full, half = (
        make_optimizer(OptimizerConfig(name=name, warmup_steps=1, state_dtype=dtype), 50)
        for dtype in ("float32", "bfloat16")
    )
    rng = np.random.default_rng(0)
    params = {"blocks": {"kernel": rng.normal(size=(2, 32, 32)).astype(np.float32)}}
    states, found = [full.init(params), half.init(params)], [params, params]
    moments = [sum(leaf.nbytes for leaf in jax.tree.leaves(state) if leaf.ndim) for state in states]
    assert moments[1] * 2 == moments[0]
    for _ in range(5):
        gradient = {"blocks": {"kernel": rng.normal(size=(2, 32, 32)).astype(np.float32)}}
        for i, optimizer in enumerate((full, half)):
            updates, states[i] = optimizer.update(gradient, states[i], found[i])
            found[i] = optax.apply_updates(found[i], updates)
    moved = np.abs(found[0]["blocks"]["kernel"] - params["blocks"]["kernel"]).max()
    apart = np.abs(found[0]["blocks"]["kernel"] - found[1]["blocks"]["kernel"]).max()
    assert 0 < apart < 0.1 * moved


@pytest.mark.parametrize("setting", [{"remat": "blocks"}, {"remat": "dots"}, {"microbatches": 2}], ids=str)
def test_less_memory_makes_the_same_step(setting):
    state, sums = steps_of(**setting)[0]
    expected, figures = steps_of()[0]
    assert_trees_close(sums, figures, 1e-5)
    assert_trees_close(state.params, expected.params, 1e-5 * RATE)


def test_computing_blocks_again_keeps_less():
    config = micro_policy().config
    deeper = dataclasses.replace(config.vision, layers=8)
    policy = Policy.from_config(dataclasses.replace(config, vision=deeper))
    crops = np.zeros((8, deeper.crop, deeper.crop, 3), np.uint8)

    def kept(remat):
        model = policy.rematerialising(remat).model

        def loss(params):
            return sum(jnp.sum(part) for part in model.apply({"params": params}, crops, method="encode_crops"))

        shapes = {"vision": policy.shapes()["vision"]}
        return jax.jit(jax.grad(loss)).lower(shapes).compile().memory_analysis().temp_size_in_bytes

    assert kept("blocks") < 0.5 * kept("none")
    assert kept("blocks") < kept("dots") < kept("none")


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"rank": 4}, "rank is 4"), ({"rank": 65}, "8 to 64"), ({"alpha": 0.0}, "alpha"), ({"targets": ("mlp",)}, "mlp")],
)
def test_factors_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        LoraConfig(**settings)
