"""Sampled rollouts: their log-probabilities are the learner's, their noise is their own, they end properly."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch
from moonseg_jax.learner.policy import rollout_statistics
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import GREEDY, sample_keys
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.types import FINISH_CLOSED

GROUP = 3
POLICY = micro_policy()
PATHS = POLICY.config.paths
BUDGET = PATHS.max_new_tokens


def batch_of(rows):
    """Prompts of several lengths: the first one of every image points at a place."""
    pointed = [[dataclasses.replace(examples[0], references=((0.25, 0.5),)), *examples[1:2]] for examples in rows]
    return prompt_batch(pointed, POLICY.layout(2))


SCENES = [scene.examples for scene in scenes(6)]
BATCH = batch_of(SCENES[:3])


def compiled(experts: int, function, *args):
    """As users compile it for four experts, quickly for others."""
    jitted = jax.jit(function)
    return jitted.lower(*args).compile() if experts == 4 else compile_quickly(jitted, *args)


@functools.cache
def sampler(temperature: float, experts: int = 4, slots: int | None = None):
    """Three samples of every prompt; slots are few, or one for every sample."""
    policy, sampling = micro_policy(experts), Sampling(group=GROUP, temperature=temperature, slots=slots)

    def run(params, batch, version):
        keys = sample_keys(jax.random.key(7), version, batch.example_ids, GROUP)
        return sample(policy.model, policy.grammar, params, batch, keys, sampling)[0]

    return compiled(experts, run, micro_params(experts), BATCH, 0)


def by_example(batch, rollouts):
    """Example id → tokens [G, T] and log-probabilities [G, T]."""
    ids = batch.example_ids.reshape(-1)
    tokens = np.asarray(rollouts.token_ids).reshape(len(ids), GROUP, -1)
    log_probs = np.asarray(rollouts.log_probs).reshape(len(ids), GROUP, -1)
    return {int(i): pair for i, pair in zip(ids, zip(tokens, log_probs))}


@pytest.mark.parametrize(("temperature", "experts", "slots"), [(1.0, 4, None), (0.7, 6, None), (1.0, 4, 5)])
def test_stored_log_probabilities_are_the_learners(temperature, experts, slots):
    policy, params = micro_policy(experts), micro_params(experts)
    assert len(np.unique(BATCH.prompt_lengths)) > 1
    rollouts = sampler(temperature, experts, slots)(params, BATCH, 0)
    assert len(np.unique(rollouts.lengths)) > 3 and min(rollouts.lengths) < BUDGET
    learner = functools.partial(rollout_statistics, policy.model, policy.grammar, temperature=temperature)
    inputs = (params, BATCH, rollouts)
    recompute = compiled(experts, learner, *inputs)
    found = recompute(*inputs).log_probs
    np.testing.assert_allclose(rollouts.log_probs, found, rtol=0, atol=1e-5)
    assert rollouts.log_probs.min() < -3.0


def test_tokens_follow_the_sample_not_its_place_in_the_batch():
    params = micro_params()
    there = by_example(BATCH, sampler(1.0)(params, BATCH, 0))
    order = np.array([2, 0, 1])
    moved = jax.tree.map(lambda leaf: leaf[order], BATCH)
    phrases = ("prompt_ids", "prompt_values", "prompt_lengths", "ground_truth", "example_ids", "valid")
    moved = moved.replace(**{name: getattr(moved, name)[:, ::-1] for name in phrases})
    here = by_example(moved, sampler(1.0)(params, moved, 0))
    assert there.keys() == here.keys() and len(there) == 6
    for example, (tokens, log_probs) in there.items():
        np.testing.assert_array_equal(here[example][0], tokens)
        np.testing.assert_allclose(here[example][1], log_probs, atol=1e-5)


def test_tokens_do_not_depend_on_the_other_prompts():
    params = micro_params()
    other = batch_of([SCENES[0], *SCENES[4:6]])
    there, here = (by_example(batch, sampler(1.0)(params, batch, 0)) for batch in (BATCH, other))
    shared = there.keys() & here.keys()
    assert len(shared) == 2
    for example in shared:
        np.testing.assert_array_equal(here[example][0], there[example][0])


def test_noise_is_a_function_of_seed_version_prompt_and_sample():
    params = micro_params()
    first, again, later = (sampler(1.0)(params, BATCH, version) for version in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    same_tokens = np.all(first.token_ids == later.token_ids, axis=1)
    assert not same_tokens.any()
    groups = np.asarray(first.token_ids).reshape(6, GROUP, -1)
    assert all(len(np.unique(group, axis=0)) == GROUP for group in groups)
    few, many = (sample_keys(jax.random.key(7), 0, BATCH.example_ids, group) for group in (2, 4))
    few, many = (jax.random.key_data(keys).reshape(6, -1, 2) for keys in (few, many))
    np.testing.assert_array_equal(few, many[:, :2])


def words(token_ids) -> str:
    """One letter per token: C coordinate, S size, N number, M, Z, E the end, ? anything else."""
    letters = np.full(POLICY.config.text.vocabulary, "?")
    letters[POLICY.vocabulary.integer_ids] = "N"
    letters[[POLICY.vocabulary.command_ids[letter] for letter in "MZ"]] = list("MZ")
    letters[[PATHS.coord_token, PATHS.size_token, PATHS.eos]] = list("CSE")
    return "".join(letters[np.asarray(token_ids)])


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize(("temperature", "experts"), [(1.0, 4), (0.7, 6)])
def test_every_rollout_is_closed_within_the_budget_and_says_so(temperature, experts, verbose):
    params = micro_params(experts)
    if verbose:
        params["text"]["head"]["bias"][POLICY.vocabulary.command_ids["Z"]] = -20.0
    for version in range(5):
        rollouts = jax.device_get(sampler(temperature, experts)(params, BATCH, version))
        np.testing.assert_array_equal(rollouts.finish, FINISH_CLOSED)
        assert not verbose or min(rollouts.lengths) >= BUDGET - 1
        for tokens, length in zip(rollouts.token_ids, rollouts.lengths):
            assert re.fullmatch("CCS(M(NN){3,}Z)+E", words(tokens[:length])), words(tokens)
        past = np.arange(BUDGET) >= rollouts.lengths[:, None]
        assert not rollouts.token_ids[past].any() and not rollouts.bins[past].any()
        assert not rollouts.log_probs[past].any() and (rollouts.log_probs <= 0).all()


def full_pass(module, batch, token_ids, values):
    """Logits at every position of BOS, image and the given tokens, in one pass over the whole sequence."""
    image = module.vision(batch.crops, batch.stitch_rows, batch.stitch_cols)
    bos = module.text.embed(jnp.full((len(image), 1), PATHS.bos))
    prefix = jnp.repeat(jnp.concatenate([bos, image], axis=1), 2, axis=0)
    embedded = jnp.concatenate([prefix, module.embed(token_ids, values)], axis=1)
    places = jnp.arange(embedded.shape[1])
    seen = (places[None, :] < prefix.shape[1]) | (places[None, :] <= places[:, None])
    hidden, *_ = module.text(embedded, jnp.broadcast_to(places, embedded.shape[:2]), (), seen)
    return module.heads(hidden)


def test_greedy_takes_the_best_of_full_passes_without_any_cache():
    params, rows = micro_params(), np.arange(6)
    greedy = functools.partial(sample, POLICY.model, POLICY.grammar, keys=None, sampling=Sampling(temperature=GREEDY))
    rollouts, _ = jax.jit(lambda params, batch: greedy(params=params, batch=batch))(params, BATCH)
    run = jax.jit(lambda params, *args: POLICY.model.apply({"params": params}, BATCH, *args, method=full_pass))

    lengths = BATCH.prompt_lengths.reshape(6)
    token_ids = np.zeros((6, PATHS.max_prompt_tokens + BUDGET), int)
    values = np.zeros((*token_ids.shape, 2), np.float32)
    token_ids[:, : PATHS.max_prompt_tokens] = BATCH.prompt_ids.reshape(6, -1)
    values[:, : PATHS.max_prompt_tokens] = BATCH.prompt_values.reshape(6, -1, 2)
    state, ended = jnp.full(6, POLICY.grammar.initial), np.zeros(6, bool)
    log_probs = np.zeros((6, BUDGET))
    for step in range(BUDGET):
        logits = run(params, token_ids, values)
        at = POLICY.config.prefix_tokens + lengths - 1 + step
        token, coord, size = (np.asarray(part, np.float64)[rows, at] for part in logits)
        token = np.where(POLICY.grammar.mask(state, jnp.full(6, BUDGET - step)), token, -np.inf)
        best, coord_bin, size_bins = token.argmax(-1), coord.argmax(-1), size.argmax(-1)
        is_coord, is_size = best == PATHS.coord_token, best == PATHS.size_token
        chosen = log_share(token, best) + is_coord * log_share(coord, coord_bin)
        chosen += is_size * log_share(size, size_bins).sum(-1)
        log_probs[:, step] = np.where(ended, 0.0, chosen)
        token_ids[rows, lengths + step] = best
        values[rows, lengths + step] = np.where(is_size[:, None], 2.0 ** (size_bins / 4 - 10), 0.0)
        values[rows, lengths + step, 0] += is_coord * coord_bin / 32
        state, ended = POLICY.grammar.advance(state, best), ended | (best == PATHS.eos)

    completions = token_ids[rows[:, None], lengths[:, None] + np.arange(BUDGET)]
    np.testing.assert_array_equal(rollouts.token_ids, completions)
    np.testing.assert_allclose(rollouts.log_probs, log_probs, atol=1e-5)


def log_share(logits, index):
    """log softmax at one entry of the last axis, in float64."""
    peak = logits.max(-1)
    chosen = np.take_along_axis(logits, index[..., None], axis=-1)[..., 0]
    return chosen - peak - np.log(np.exp(logits - peak[..., None]).sum(-1))
