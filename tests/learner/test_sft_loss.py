"""Supervised losses: what counts, what costs, and that learning lowers them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import QUICK, compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.learner.forward import completion_logits
from moonseg_jax.learner.sft import (
    BOX_TOKENS,
    heat_map_loss,
    make_sft_step,
    patch_shares,
    patch_words_loss,
    path_distance,
    ranked_probability_score,
    sft_sums,
)
from moonseg_jax.learner.state import init_state

POLICY = micro_policy()
BUDGET = POLICY.config.paths.max_new_tokens
BOX_AND_MOVE = BOX_TOKENS + 1


def batch_of(rows):
    layout = POLICY.layout(2)
    return prompt_batch(rows, layout), target_batch(rows, layout)


ROWS = [scene.examples[:2] for scene in scenes(4)]


OPTIMIZER = optax.adam(3e-3)


@functools.cache
def compiled_step():
    step = make_sft_step(
        POLICY.model, POLICY.tables, OPTIMIZER, tokens=BUDGET, box_weight=1.0, box_distance_weight=4.0,
        path_distance_weight=8.0, heat_weight=1.0, words_weight=1.0, average_decay=0.9,
    )  # fmt: skip
    return compile_quickly(step, fresh_state(), *batch_of(ROWS))


def fresh_state():
    return init_state(jax.tree.map(jnp.array, {"policy": micro_params()}), OPTIMIZER)


def sums(batch, targets):
    """What a first step says of its losses."""
    return jax.device_get(compiled_step()(fresh_state(), batch, targets)[1])


def test_a_batch_is_the_sum_of_its_halves_and_padding_counts_nowhere():
    whole = sums(*batch_of(ROWS))
    halves = [sums(*with_padding(*batch_of(rows))) for rows in (ROWS[:2], ROWS[2:])]
    lengths = batch_of(ROWS)[1].lengths
    assert whole["box"][1] == 3 * 8 and whole["box_distance"][1] == 3 * 8
    said = sum(len(example.phrase.split()) for row in ROWS for example in row)
    assert whole["words"][1] == said and whole["heat"][1] == said + 8
    assert whole["path"][1] == lengths.sum() - 3 * 8
    numbers = sum(word.isdigit() for path in traced_paths() for word in path.split())
    assert whole["path_distance"][1] == numbers > 8 * 6
    for name in ("box", "path", "box_distance", "path_distance", "heat", "words"):
        np.testing.assert_allclose(whole[name], np.add(halves[0][name], halves[1][name]), rtol=1e-5, err_msg=name)


def traced_paths():
    """Text of the eight targets."""
    targets = batch_of(ROWS)[1]
    rows = zip(targets.token_ids.reshape(8, -1), targets.lengths.reshape(8))
    return [POLICY.vocabulary.decode(token_ids[:length]) for token_ids, length in rows]


def with_padding(batch, targets):
    """Two more images that are padding, their pixels and ids arbitrary."""
    noise = batch_of(ROWS[:2])
    none = np.zeros_like(batch.valid)
    batch = jax.tree.map(lambda *parts: np.concatenate(parts), batch, noise[0].replace(valid=none))
    return batch, jax.tree.map(
        lambda *parts: np.concatenate(parts), targets, noise[1].replace(lengths=0 * noise[1].lengths)
    )


def test_every_token_is_learned_over_the_whole_vocabulary():
    """The grammar forces an M behind the box; without the grammar it must be learned like any other word."""
    batch, targets = batch_of(ROWS)
    first = jax.jit(
        functools.partial(sft_sums, POLICY.model, POLICY.tables, grounding=False, tokens=BOX_AND_MOVE),
        compiler_options=QUICK,
    )
    start = first(params=micro_params(), batch=batch, targets=targets)
    forward = jax.jit(functools.partial(completion_logits, POLICY.model), compiler_options=QUICK)
    token_ids, bins = (
        leaf.reshape(8, BUDGET, *leaf.shape[3:])[:, :BOX_AND_MOVE] for leaf in (targets.token_ids, targets.bins)
    )
    logits = np.asarray(forward(micro_params(), batch, token_ids, bins).logits.token[:, 3], np.float64)
    nats = np.log(np.exp(logits).sum(axis=-1)) - logits[:, POLICY.vocabulary.command_ids["M"]]
    np.testing.assert_allclose(start["path"], (nats.sum(), 8.0), rtol=1e-4)
    np.testing.assert_allclose(start["box"], sums(batch, targets)["box"], rtol=1e-5)
    assert start["box"][0] / start["box"][1] > 2.0


@pytest.mark.parametrize(
    ("columns", "shares"), [(4, [1 / 4] * 4), (2, [3 / 7, 1 / 14, 3 / 7, 1 / 14])], ids=["whole", "left half"]
)
def test_shares_of_a_two_by_two_grid(columns, shares):
    # Shrinking a mask of 4 x 4 blends neighbours: weights 3/7, 3/7, 1/7, so a seventh of the left half spills over.
    truth = np.zeros((1, 2, 4, 4), bool)
    truth[:, 0, :, :columns] = True
    np.testing.assert_allclose(patch_shares(jnp.asarray(truth), 4), [[shares, [0.0] * 4]], rtol=1e-5)


def test_heat_map_is_the_first_heads_attention_in_every_routed_layer_but_the_last():
    # Scores ±ln 3 / 2 share the attention of the first head 3 : 1 : 3 : 3; other heads and layers hold noise.
    queries, keys = np.random.default_rng(0).normal(size=(3, 2, 3, 2, 4)), np.zeros((3, 1, 2, 4, 4))
    queries[:2, :, :, 0], keys[:2, :, 0] = [np.log(3.0), 0, 0, 0], 0
    keys[:2, 0, 0, :, 0] = [1.0, -1.0, 1.0, 1.0]
    shares = jnp.array([[[0.5, 0.5, 0.0, 0.0], [0.0] * 4]])
    learned = jnp.array([[[True, False, True], [True] * 3]])
    total, count = heat_map_loss(jnp.asarray(queries), jnp.asarray(keys), shares, learned)
    expected = -2 * (0.5 * np.log(0.3) + 0.5 * np.log(0.1))
    np.testing.assert_allclose((total, count), (expected, 2.0), rtol=1e-4)


def test_patches_speak_by_their_likeness_to_word_embeddings():
    embedding = jnp.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0]])
    image = jnp.array([[[5.0, 0.0], [0.0, 0.1]]])
    # Normalised patches are (√2, 0) and (0, √2): scores ±2 for a like word, 0 for an orthogonal one.
    shares, learned = jnp.array([[[0.25, 0.75]]]), jnp.array([[[True, True, False]]])
    total, count = patch_words_loss(embedding, image, shares, jnp.array([[[0, 1, 2]]]), learned)
    first = np.array([2.0, 0.0, -2.0]) - np.log(np.exp([2.0, 0.0, -2.0]).sum())
    second = np.array([0.0, 2.0, 0.0]) - np.log(np.exp([0.0, 2.0, 0.0]).sum())
    said = 0.25 * first + 0.75 * second
    np.testing.assert_allclose((total, count), (-(said[0] + said[1]), 2.0), rtol=1e-4)


def test_ranked_probability_score_grows_with_the_distance_and_is_proper():
    sure = jnp.log(jnp.eye(5) + 1e-9)
    scores = ranked_probability_score(sure, jnp.full(5, 2))
    np.testing.assert_allclose(scores, [2 / 5, 1 / 5, 0.0, 1 / 5, 2 / 5], atol=1e-5)
    # The mean score under a distribution is smallest for that distribution itself.
    truth = jnp.array([0.1, 0.5, 0.2, 0.2])

    def mean_score(logits):
        return jnp.sum(truth * jax.vmap(lambda b: ranked_probability_score(logits, b))(jnp.arange(4)))

    np.testing.assert_allclose(jax.grad(mean_score)(jnp.log(truth)), np.zeros(4), atol=1e-6)


def test_a_number_costs_by_its_distance_whatever_ids_numbers_have():
    """Numbers 0, 30, 60, … in this order; 'M' and padding have no distance."""
    ids = np.asarray(POLICY.tables.number_ids)
    move = POLICY.vocabulary.command_ids["M"]
    said = np.array([[ids[4], ids[4], ids[0], move]])
    meant = np.array([[ids[4], ids[7], ids[2], move]])
    sure = 50.0 * np.eye(POLICY.config.text.vocabulary)[said]
    total, count = path_distance(jnp.asarray(sure), jnp.asarray(meant), jnp.array([[True] * 4]), POLICY.tables)
    np.testing.assert_allclose((total, count), ((0 + 3 + 2) / len(ids), 3.0), rtol=1e-5)
    total, count = path_distance(
        jnp.asarray(sure), jnp.asarray(meant), jnp.array([[True, True, False, False]]), POLICY.tables
    )
    np.testing.assert_allclose((total, count), (3 / len(ids), 2.0), rtol=1e-5)


def test_steps_on_one_batch_lower_every_loss():
    state, history = fresh_state(), []
    for _ in range(12):
        state, losses = compiled_step()(state, *batch_of(ROWS))
        history.append({name: float(total / count) for name, (total, count) in losses.items()})
    for name in ("box", "path", "box_distance", "path_distance", "heat", "words"):
        assert history[-1][name] < 0.85 * history[0][name], (name, history[0], history[-1])
