"""The assembled policy: passes agree with each other, with dense and routed blocks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import QUICK, micro, micro_params

from moonseg_jax.config import moondream3, small, tiny
from moonseg_jax.model import moe, pages, segments
from moonseg_jax.model.decoding import contexts_of, decode, layers_of
from moonseg_jax.model.low_rank import Factors, Matrices
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.pages import empty_caches
from moonseg_jax.model.segments import Seats

pytestmark = pytest.mark.slow

CONFIG = micro()
MODEL = Moondream(CONFIG)


IMAGES, PROMPTS, GROUP, STEPS = 2, 4, 3, 7
"""Four prompts over two images, three completions each."""


def inputs(seed: int = 0) -> tuple:
    """Pixels with stitching weights, and prompts of several lengths."""
    rng = np.random.default_rng(seed)
    side, grid, budget = CONFIG.vision.crop, CONFIG.vision.grid, CONFIG.paths.max_prompt_tokens
    crops = rng.integers(0, 256, (IMAGES, 1, side, side, 3), dtype=np.uint8)
    eye = np.broadcast_to(np.eye(grid, dtype=np.float32), (IMAGES, 1, grid, grid))
    ids = rng.integers(21, CONFIG.text.vocabulary, (PROMPTS, budget))
    values = rng.uniform(size=(PROMPTS, budget, 2)).astype(np.float32)
    return (crops, eye, eye), (ids, values, rng.integers(4, 10, PROMPTS))


def completions(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of completions: a box, then anything; and the values at its tokens."""
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(0, 60, (PROMPTS * GROUP, STEPS))
    token_ids[:, :3] = (CONFIG.paths.coord_token, CONFIG.paths.coord_token, CONFIG.paths.size_token)
    return token_ids, rng.uniform(size=(*token_ids.shape, 2)).astype(np.float32)


PARAMS = micro_params()


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def apply(method, *args, **kwargs):
    return MODEL.apply({"params": PARAMS}, *args, method=method, **kwargs)


def complete(image, prompt, token_ids, values, **kwargs):
    """Hidden rows of completions over fresh prefixes and prompts."""
    _, prefix, _ = apply("prefix", *image)
    _, context, _ = apply("prompt", prefix, *prompt)
    return apply("complete", (prefix, context), np.repeat(prompt[2], GROUP), token_ids, values, **kwargs)


def contexts_before(image, prompt):
    """What completions attend to, layer by layer."""
    _, prefix, _ = apply("prefix", *image)
    _, context, _ = apply("prompt", prefix, *prompt)
    return tuple(map(list, zip(*(contexts_of(part, CONFIG.text) for part in (prefix, context)))))


@functools.partial(jax.jit, compiler_options=QUICK)
def decode_one(contexts, lengths, token_ids, values, steps, caches, seats):
    layers = layers_of(PARAMS, CONFIG.text)
    return decode(MODEL, PARAMS, layers, contexts, lengths, token_ids, values, steps, caches, seats)


@pytest.mark.parametrize("choosing", [False, True])
@pytest.mark.parametrize("places", [range(PROMPTS * GROUP), np.random.default_rng(0).permutation(PROMPTS * GROUP)])
def test_cached_decoding_equals_full_pass(places, choosing, monkeypatch):
    """Rows in the order of their prompts, and rows in any order with their seats told; reading all, or what is used."""
    if choosing:
        monkeypatch.setattr(pages, "PAGE", 2)
        monkeypatch.setattr(segments, "MOST_TURNS", 1)
        for module in (pages, segments):
            monkeypatch.setattr(module, "WORTH_CHOOSING", 0)
    decode_one.clear_cache()
    image, prompt = inputs()
    token_ids, values = (leaf[list(places)] for leaf in completions())
    full, experts = complete(image, prompt, *completions())
    contexts = contexts_before(image, prompt)
    seats = None
    if not isinstance(places, range):
        seats = Seats(row_of_seat=np.argsort(places), seat_of_row=np.array(places), taken=np.ones(len(places), bool))
    lengths = np.repeat(prompt[2], GROUP)[list(places)]
    caches = empty_caches(CONFIG.text, PROMPTS * GROUP, STEPS + 2, np.float32)
    for step in range(STEPS):
        one = slice(step, step + 1)
        steps = np.full(PROMPTS * GROUP, step)
        hidden, caches, used = decode_one(contexts, lengths, token_ids[:, one], values[:, one], steps, caches, seats)
        np.testing.assert_allclose(hidden[:, 0], full[list(places), step], atol=2e-5)
        np.testing.assert_array_equal(used[:, :, 0], experts[:, list(places), step])
    replayed, _ = complete(image, prompt, *completions(), replay=experts)
    np.testing.assert_allclose(replayed, full, atol=1e-6)


def test_rows_decode_at_steps_of_their_own():
    image, prompt = inputs()
    token_ids, values = completions()
    full, _ = complete(image, prompt, token_ids, values)
    contexts = contexts_before(image, prompt)
    rows, lag = np.arange(PROMPTS * GROUP), np.arange(PROMPTS * GROUP) % 3
    lengths = np.repeat(prompt[2], GROUP)
    caches = empty_caches(CONFIG.text, len(rows), STEPS, np.float32)
    for tick in range(STEPS + 2):
        steps = np.clip(tick - lag, 0, STEPS - 1)
        now = (rows, steps)
        hidden, caches, _ = decode_one(
            contexts, lengths, token_ids[now][:, None], values[now][:, None], steps, caches, None
        )  # fmt: skip
        np.testing.assert_allclose(hidden[:, 0], full[now], atol=2e-5)


@pytest.mark.parametrize("dense_layers", [0, 2])
def test_decoding_needs_only_one_kind_of_block(dense_layers):
    text = dataclasses.replace(CONFIG.text, layers=2, dense_layers=dense_layers)
    model = Moondream(dataclasses.replace(CONFIG, text=text))
    token_ids, values = (leaf[:2] for leaf in completions())
    prompt = [leaf[:2] for leaf in inputs()[1]]
    image = [leaf[:1] for leaf in inputs()[0]]
    params = model.init(jax.random.key(0), *image, *prompt)["params"]

    def run(method, *args):
        return model.apply({"params": params}, *args, method=method)

    _, prefix, _ = run("prefix", *image)
    _, context, _ = run("prompt", prefix, *prompt)
    full, _ = run("complete", (prefix, context), prompt[2], token_ids, values)
    contexts = tuple(map(list, zip(*(contexts_of(part, text) for part in (prefix, context)))))
    hidden, _, experts = decode(
        model, params, layers_of(params, text), contexts, prompt[2], token_ids, values, np.zeros(2, int),
        empty_caches(text, 2, STEPS, np.float32),
    )  # fmt: skip
    np.testing.assert_allclose(hidden, full, atol=2e-5)
    assert len(experts) == 2 - dense_layers


def test_replay_uses_the_given_experts():
    image, prompt = inputs()
    full, experts = complete(image, prompt, *completions(), replay=None)
    other, used = complete(image, prompt, *completions(), replay=(experts + 1) % CONFIG.text.experts)
    np.testing.assert_array_equal(used, (experts + 1) % CONFIG.text.experts)
    assert np.abs(other - full).max() > 1e-3


def last_logits(image, prompt):
    """All logits at the end of each prompt."""
    ids, _, lengths = prompt
    _, prefix, _ = apply("prefix", *image)
    hidden, _, _ = apply("prompt", prefix, *prompt)
    return apply("heads", hidden[np.arange(len(ids)), lengths - 1])


def test_padding_of_the_prompt_changes_nothing():
    image, (ids, values, lengths) = inputs()
    logits = last_logits(image, (ids, values, lengths))
    cut = last_logits(image, (ids[:, :9], values[:, :9], lengths))
    other = np.where(np.arange(ids.shape[1]) < lengths[:, None], ids, 7)
    replaced = last_logits(image, (other, values, lengths))
    for found in (cut, replaced):
        jax.tree.map(lambda leaf, like: np.testing.assert_allclose(leaf, like, atol=1e-5), found, logits)
    token_ids = completions()
    hidden, _ = complete(image, (ids, values, lengths), *token_ids)
    over_replaced, _ = complete(image, (other, values, lengths), *token_ids)
    np.testing.assert_allclose(over_replaced, hidden, atol=1e-5)


def test_completion_sees_image_prompt_and_earlier_tokens_only():
    image, prompt = inputs()
    tokens, values = completions()
    base, _ = complete(image, prompt, tokens, values)
    later = tokens.copy()
    later[0, 4] = 61
    changed, _ = complete(image, prompt, later, values)
    np.testing.assert_allclose(changed[0, :4], base[0, :4], atol=1e-6)
    np.testing.assert_allclose(changed[1:], base[1:], atol=1e-6)
    assert np.abs(changed[0, 4:] - base[0, 4:]).max() > 1e-4
    inverted = np.concatenate([255 - image[0][:1], image[0][1:]])
    seen, _ = complete((inverted, *image[1:]), prompt, tokens, values)
    rows_of_image = PROMPTS * GROUP // IMAGES
    assert np.abs(seen - base)[:rows_of_image].max() > 1e-3
    np.testing.assert_allclose(seen[rows_of_image:], base[rows_of_image:], atol=1e-6)


@pytest.mark.parametrize(
    ("experts", "tokens", "rank"), [(4, 77, 0), (8, 77, 0), (8, 1, 0), (8, 9, 0), (64, 9, 0), (4, 9, 3), (8, 77, 3)]
)
def test_expert_products_agree_with_a_loop_over_tokens(experts, tokens, rank):
    rng = np.random.default_rng(2)
    width, inner, active = 12, 10, 2
    x = rng.normal(size=(tokens, width)).astype(np.float32)
    up = rng.normal(size=(experts, width, 2 * inner)).astype(np.float32)
    down = rng.normal(size=(experts, inner, width)).astype(np.float32)
    matrices = [Matrices(jnp.asarray(up)), Matrices(jnp.asarray(down))]
    if rank:
        pairs = [
            Factors(*(rng.normal(size=(experts, *sides)).astype(np.float32) for sides in ((ins, rank), (rank, outs))))
            for ins, outs in ((width, 2 * inner), (inner, width))
        ]
        matrices = [plain._replace(factors=pair) for plain, pair in zip(matrices, pairs)]
        up, down = up + pairs[0].into @ pairs[0].out_of, down + pairs[1].into @ pairs[1].out_of
    chosen = np.stack([rng.choice(experts, active, replace=False) for _ in range(tokens)])
    weights = rng.dirichlet(np.ones(active), tokens).astype(np.float32)
    expected = np.zeros_like(x)
    for token in range(tokens):
        for expert, weight in zip(chosen[token], weights[token]):
            expected[token] += weight * np.asarray(moe.gated(x[token] @ up[expert])) @ down[expert]
    for product in (moe.all_experts, moe.grouped_experts, moe.ragged_experts):
        out = jax.jit(product, compiler_options=QUICK)(x, *matrices, chosen, weights)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_routed_products_can_be_mapped_over_engines():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 8)).astype(np.float32)
    sides = (8, 10), (8, 2), (2, 10), (5, 8)
    up, into, out_of, down = (jnp.asarray(rng.normal(size=(6, *side)).astype(np.float32)) for side in sides)
    matrices = Matrices(up, Factors(into, out_of)), Matrices(down)
    chosen, weights = jnp.asarray(rng.integers(0, 6, (3, 5, 2))), jnp.asarray(rng.random((3, 5, 2)).astype(np.float32))
    mapped = jax.vmap(moe.ragged_experts_of_engines, (0, None, None, 0, 0))(x, *matrices, chosen, weights)
    for engine in range(3):
        alone = moe.grouped_experts(x[engine], *matrices, chosen[engine], weights[engine])
        np.testing.assert_allclose(mapped[engine], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("experts", [3, 8, 64])
def test_grouped_product_computes_fewer_than_twice_the_rows_it_must(experts):
    rng = np.random.default_rng(0)
    for assignments in (*range(1, 200), 1000, 5840):
        rows, block = moe.grouped_rows(assignments, experts), moe.rows_per_block(assignments, experts)
        assert rows < 2 * assignments
        # The worst choice: every expert has one row more than whole blocks, as long as there are rows.
        used = min(assignments, experts)
        unlucky = 1 + np.bincount(np.arange((assignments - used) // block) % used, minlength=used) * block
        for counts in (unlucky, [assignments], rng.multinomial(assignments, np.ones(experts) / experts)):
            assert sum(-(-int(count) // block) * block for count in counts) <= rows


def count_parameters(config) -> int:
    model, side, grid = Moondream(config), config.vision.crop, config.vision.grid
    weights = jax.ShapeDtypeStruct((1, 1, grid, grid), jnp.float32)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1, side, side, 3), jnp.uint8), weights, weights,
        np.zeros((1, 4), int), np.zeros((1, 4, 2), np.float32), np.full((1,), 4),
    )  # fmt: skip
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameter_counts():
    assert count_parameters(moondream3()) == 9_268_626_928
    assert 40e6 < count_parameters(small()) < 80e6
    assert 0.6e6 < count_parameters(tiny()) < 1.6e6


def test_sizes_that_cannot_work_are_refused_by_name():
    with pytest.raises(ValueError, match=r"vision\.crop"):
        dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, crop=97))
