"""The assembled policy: passes agree with each other, with dense and routed blocks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import micro, micro_params

from moonseg_jax.config import moondream3, small, tiny
from moonseg_jax.model import moe
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.text import empty_cache

CONFIG = micro()
MODEL = Moondream(CONFIG)


def prompts(images: int, rows: int, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    side, grid, budget = CONFIG.vision.crop, CONFIG.vision.grid, CONFIG.paths.max_prompt_tokens
    crops = rng.integers(0, 256, (images, 1, side, side, 3), dtype=np.uint8)
    eye = np.broadcast_to(np.eye(grid, dtype=np.float32), (images, 1, grid, grid))
    ids = rng.integers(21, CONFIG.text.vocabulary, (rows, budget))
    values = rng.uniform(size=(rows, budget, 2)).astype(np.float32)
    return crops, eye, eye, ids, values, rng.integers(4, budget + 1, rows)


@pytest.fixture(scope="module")
def params():
    return micro_params()


@functools.partial(jax.jit, static_argnums=1)
def apply(params, method, *args, **kwargs):
    return MODEL.apply({"params": params}, *args, method=method, **kwargs)


def test_cached_decoding_equals_full_pass(params):
    crops, rows, cols, ids, values, lengths = prompts(2, 4)
    rng = np.random.default_rng(1)
    group, steps = 3, 7
    token_ids = rng.integers(0, 60, (4 * group, steps))
    token_ids[:, :3] = (CONFIG.paths.coord_token, CONFIG.paths.coord_token, CONFIG.paths.size_token)
    token_values = rng.uniform(size=(4 * group, steps, 2)).astype(np.float32)
    _, prefix = apply(params, "prefix", crops, rows, cols)
    _, prompt = apply(params, "prompt", prefix, ids, values, lengths)
    row_lengths = np.repeat(lengths, group)
    full, _, experts = apply(params, "complete", (prefix, prompt), row_lengths, token_ids, token_values)
    cache = empty_cache(CONFIG.text, 4 * group, steps + 2)
    for step in range(steps):
        one = slice(step, step + 1)
        hidden, cache, _ = apply(
            params, "complete", (prefix, prompt), row_lengths, token_ids[:, one], token_values[:, one],
            start=step, cache=cache,
        )  # fmt: skip
        np.testing.assert_allclose(hidden[:, 0], full[:, step], atol=2e-5)
    replayed, _, _ = apply(
        params, "complete", (prefix, prompt), row_lengths, token_ids, token_values, replay=experts
    )  # fmt: skip
    np.testing.assert_array_equal(replayed, full)


def test_padding_of_the_prompt_changes_nothing(params):
    crops, rows, cols, ids, values, lengths = prompts(1, 2)
    lengths = np.minimum(lengths, 9)
    logits = apply(params, "__call__", crops, rows, cols, ids, values, lengths)
    cut = apply(params, "__call__", crops, rows, cols, ids[:, :9], values[:, :9], lengths)
    np.testing.assert_allclose(logits.token, cut.token, atol=1e-5)
    other = ids.copy()
    other[:, 9:] = 7
    np.testing.assert_allclose(
        apply(params, "__call__", crops, rows, cols, other, values, lengths).coord, logits.coord, atol=1e-5
    )


def test_completion_sees_image_prompt_and_earlier_tokens_only(params):
    crops, rows, cols, ids, values, lengths = prompts(1, 1)
    tokens = np.full((1, 6), 40)
    zeros = np.zeros((1, 6, 2), np.float32)

    def run(crops, tokens):
        _, prefix = apply(params, "prefix", crops, rows, cols)
        _, prompt = apply(params, "prompt", prefix, ids, values, lengths)
        return apply(params, "complete", (prefix, prompt), lengths, tokens, zeros)[0]

    base, later = run(crops, tokens), tokens.copy()
    later[0, 4] = 41
    changed = run(crops, later)
    np.testing.assert_allclose(changed[0, :4], base[0, :4], atol=1e-6)
    assert np.abs(changed[0, 4:] - base[0, 4:]).max() > 1e-4
    assert np.abs(run(255 - crops, tokens) - base).max() > 1e-4


@pytest.mark.parametrize("experts", [4, 8])
def test_expert_products_agree_with_a_loop_over_tokens(experts):
    rng = np.random.default_rng(2)
    tokens, width, inner, active = 77, 12, 10, 2
    x = rng.normal(size=(tokens, width)).astype(np.float32)
    up = rng.normal(size=(experts, width, 2 * inner)).astype(np.float32)
    down = rng.normal(size=(experts, inner, width)).astype(np.float32)
    chosen = np.stack([rng.choice(experts, active, replace=False) for _ in range(tokens)])
    weights = rng.dirichlet(np.ones(active), tokens).astype(np.float32)
    expected = np.zeros_like(x)
    for token in range(tokens):
        for expert, weight in zip(chosen[token], weights[token]):
            expected[token] += weight * np.asarray(moe.gated(x[token] @ up[expert])) @ down[expert]
    for product in (moe.all_experts, moe.grouped_experts, moe.ragged_experts):
        out = jax.jit(product)(*map(jnp.asarray, (x, up, down, chosen, weights)))
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def count_parameters(config) -> int:
    model = Moondream(config)
    side, grid = config.vision.crop, config.vision.grid
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, 1, side, side, 3), jnp.uint8), jnp.zeros((1, 1, grid, grid)),
        jnp.zeros((1, 1, grid, grid)), jnp.zeros((1, 4), int), jnp.zeros((1, 4, 2)), jnp.full((1,), 4),
    )  # fmt: skip
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameter_counts():
    assert count_parameters(moondream3()) == 9_268_626_928
    assert 40e6 < count_parameters(small()) < 80e6
    assert 0.6e6 < count_parameters(tiny()) < 1.6e6


def test_sizes_that_cannot_work_are_refused_by_name():
    with pytest.raises(ValueError, match=r"vision\.crop"):
        dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, crop=97))
