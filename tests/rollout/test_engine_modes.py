"""Ways to decode: free and constrained, references in prompts, tilings of images."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny_models import QUICK, compile_quickly, micro, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch
from moonseg_jax.errors import UserError
from moonseg_jax.images import select_tiling
from moonseg_jax.learner.policy import rollout_statistics
from moonseg_jax.policy import Policy
from moonseg_jax.rewards.shapes import shape
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.groups import make_rollout
from moonseg_jax.rollout.noise import GREEDY, sample_keys
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.types import FINISH_BUDGET, FINISH_CLOSED, FINISH_INVALID

POLICY, GROUP = micro_policy(), 4
PATHS = POLICY.config.paths
FREE = POLICY.grammar.unenforced()
BATCH = prompt_batch([scene.examples[:2] for scene in scenes(3)], POLICY.layout(2))


@functools.cache
def free_rollouts():
    """Samples of random parameters without a grammar: nearly all of them break it."""

    def run(params, batch):
        keys = sample_keys(jax.random.key(1), 0, batch.example_ids, GROUP)
        return sample(POLICY.model, FREE, params, batch, keys, Sampling(group=GROUP, slots=7))[0]

    return jax.device_get(compile_quickly(jax.jit(run), fluent(), BATCH)(fluent(), BATCH))


def fluent(letters: float = 3.0):
    """Random parameters under which the tokens of paths are likelier than all others, so that some text is right."""
    params = micro_params()
    bias = params["text"]["head"]["bias"]
    bias[np.asarray(POLICY.grammar.choices)] += letters
    return params


def finish_by_hand(tokens, length) -> int:
    """What the automaton, walked in Python, says of one completion."""
    state = POLICY.grammar.initial
    table, classes = np.asarray(POLICY.grammar.next_state), np.asarray(POLICY.grammar.class_of_token)
    for token in tokens[:length]:
        state = table[state, classes[token]]
        if state < 0:
            return FINISH_INVALID
    return FINISH_CLOSED if tokens[length - 1] == PATHS.eos else FINISH_BUDGET


def test_free_decoding_says_how_each_sample_ended():
    rollouts = free_rollouts()
    expected = [finish_by_hand(*row) for row in zip(rollouts.token_ids, rollouts.lengths)]
    np.testing.assert_array_equal(rollouts.finish, expected)
    assert np.mean(rollouts.finish == FINISH_INVALID) > 0.5
    ended = rollouts.token_ids[np.arange(len(expected)), rollouts.lengths - 1] == PATHS.eos
    assert ((rollouts.lengths == PATHS.max_new_tokens) | ended).all()


def test_free_log_probabilities_are_the_learners_over_the_whole_vocabulary():
    rollouts, params = free_rollouts(), fluent()
    learner = jax.jit(functools.partial(rollout_statistics, POLICY.model, FREE, temperature=1.0))
    found = compile_quickly(learner, params, BATCH, rollouts)(params, BATCH, rollouts).log_probs
    within = np.arange(PATHS.max_new_tokens) < rollouts.lengths[:, None]
    np.testing.assert_allclose(rollouts.log_probs[within], found[within], rtol=0, atol=1e-5)
    others = sorted(set(range(POLICY.config.text.vocabulary)) - set(np.asarray(POLICY.grammar.choices).tolist()))
    assert np.isin(rollouts.token_ids[within], others).any(), "tokens outside the grammar are drawn too"


def test_all_three_ends_occur_where_paths_are_likely():
    """A greedy policy that writes the same letter over and over runs out of budget or breaks the grammar."""
    greedy = functools.partial(sample, POLICY.model, FREE, keys=None, sampling=Sampling(temperature=GREEDY))
    run = jax.jit(lambda params, batch, budgets: greedy(params=params, batch=batch, budgets=budgets)[0].finish)
    params = micro_params()
    compiled = compile_quickly(run, params, BATCH, np.full(6, 2))
    only = functools.partial(only_token, params)
    np.testing.assert_array_equal(compiled(only(PATHS.coord_token), BATCH, np.full(6, 2)), FINISH_BUDGET)
    np.testing.assert_array_equal(compiled(only(PATHS.coord_token), BATCH, np.full(6, 3)), FINISH_INVALID)
    np.testing.assert_array_equal(compiled(only(PATHS.eos), BATCH, np.full(6, 3)), FINISH_INVALID)
    allowing = dataclasses.replace(micro(), paths=dataclasses.replace(PATHS, allow_no_target=True))
    with_no_target = Policy.from_config(allowing).grammar.unenforced()
    finish = jax.jit(
        lambda params, batch: (
            sample(POLICY.model, with_no_target, params, batch, None, Sampling(temperature=GREEDY))[0].finish
        ),
        compiler_options=QUICK,
    )(only(PATHS.eos), BATCH)
    np.testing.assert_array_equal(finish, FINISH_CLOSED)


def only_token(params, token):
    """Parameters that always write one token."""
    bias = np.full_like(params["text"]["head"]["bias"], -1e4)
    bias[token] = 1e4
    return {**params, "text": {**params["text"], "head": {**params["text"]["head"], "bias": bias}}}


def test_references_in_the_prompt_change_the_answer():
    example = scenes(1)[0].examples[0]
    references = ((), ((0.1, 0.2),), ((0.9, 0.2),), ((0.5, 0.5, 0.2, 0.3),))
    pointed = [dataclasses.replace(example, references=reference) for reference in references]
    batch = prompt_batch([pointed], POLICY.layout(4))
    sampling = Sampling(temperature=GREEDY)
    run = jax.jit(lambda params, batch: sample(POLICY.model, POLICY.grammar, params, batch, None, sampling)[0])
    rollouts = compile_quickly(run, micro_params(), batch)(micro_params(), batch)
    first = np.asarray(rollouts.log_probs[:, 0])
    assert np.abs(first[:, None] - first)[np.triu_indices(4, 1)].min() > 1e-3


def test_tilings_share_one_program_and_stay_apart():
    """Images of several tilings: side by side in one batch each draws what it draws by itself."""
    vision = micro().vision
    layout = POLICY.layout(1, 1 + vision.max_tiles)
    scene = scenes(1)[0].examples[0]
    pixels = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    images = [pixels[:48, :48], pixels[:60, :100], pixels[:150, :50], pixels]
    assert len({select_tiling(*image.shape[:2], vision) for image in images}) == 4
    rows = [[dataclasses.replace(scene, image=image, target=None, example_id=i)] for i, image in enumerate(images)]
    traced = []

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(params, batch):
        traced.append(batch.crops.shape)
        keys = sample_keys(jax.random.key(0), 0, batch.example_ids, 2)
        return sample(POLICY.model, POLICY.grammar, params, batch, keys, Sampling(group=2, slots=2))[0]

    alone = run(micro_params(), prompt_batch(rows[:1], layout))
    compiled = len(traced)
    alone = [alone, *(run(micro_params(), prompt_batch([row], layout)) for row in rows[1:])]
    assert len(traced) == compiled, "another tiling is no reason to compile again"
    together = run(micro_params(), prompt_batch(rows, layout))
    np.testing.assert_array_equal(together.token_ids, np.concatenate([one.token_ids for one in alone]))
    np.testing.assert_allclose(together.log_probs, np.concatenate([one.log_probs for one in alone]), atol=1e-5)


def test_a_budget_without_room_for_a_path_is_refused():
    narrow = dataclasses.replace(micro(), paths=dataclasses.replace(PATHS, max_new_tokens=11))
    with pytest.raises(UserError, match=r"max_new_tokens is 11: the shortest path with its box and end takes 12"):
        make_rollout(Policy.from_config(narrow), Sampling(group=2), reward=shape("iou"), seed=0)
    enough = dataclasses.replace(micro(), paths=dataclasses.replace(PATHS, max_new_tokens=12))
    make_rollout(Policy.from_config(enough), Sampling(group=2), reward=shape("iou"), seed=0)
