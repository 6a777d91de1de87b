"""A policy of the `full` grammar: the switch, its samples and the learner's view of them, what they draw."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny_models import compile_quickly, micro, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch
from moonseg_jax.errors import UserError
from moonseg_jax.learner.policy import rollout_statistics
from moonseg_jax.paths.engine.completion_text import path_from_tokens
from moonseg_jax.paths.engine.path_data import read_path_data
from moonseg_jax.paths.grammar import TokenClass
from moonseg_jax.paths.pen import CurveTables
from moonseg_jax.policy import Policy
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import sample_keys
from moonseg_jax.rollout.score import read_paths
from moonseg_jax.rollout.settings import Sampling

GROUP = 4


def config_of(grammar):
    config = micro()
    return dataclasses.replace(config, paths=dataclasses.replace(config.paths, grammar=grammar))


def test_only_the_full_grammar_reads_curves():
    polygon, full = micro_policy(), Policy.from_config(config_of("full"))
    assert not isinstance(polygon.tables, CurveTables) and polygon.grammar.next_state.shape[1] == len(TokenClass)
    assert isinstance(full.tables, CurveTables) and bool(full.tables.is_minus[full.vocabulary.minus_id])
    reachable = np.unique(full.grammar.class_of_token)
    assert len(reachable) == 11


def test_an_unknown_grammar_is_refused():
    with pytest.raises(UserError, match=r"paths\.grammar is 'beziers': name 'polygon' or 'full'"):
        Policy.from_config(config_of("beziers"))


def test_samples_are_proper_curves_with_the_learners_log_probabilities():
    policy, params = Policy.from_config(config_of("full")), micro_params()
    batch = prompt_batch([scene.examples[:2] for scene in scenes(3)], policy.layout(2))

    def run(params, batch):
        keys = sample_keys(jax.random.key(7), 0, batch.example_ids, GROUP)
        rollouts, _ = sample(policy.model, policy.grammar, params, batch, keys, Sampling(group=GROUP, slots=10))
        return rollouts, read_paths(policy.config, policy.tables, rollouts)

    rollouts, drawn = compile_quickly(jax.jit(run), params, batch)(params, batch)
    learner = jax.jit(functools.partial(rollout_statistics, policy.model, policy.grammar, temperature=1.0))
    found = compile_quickly(learner, params, batch, rollouts)(params, batch, rollouts).log_probs
    np.testing.assert_allclose(rollouts.log_probs, found, rtol=0, atol=1e-5)
    letters: set[str] = set()
    for row, length in zip(np.asarray(rollouts.token_ids), np.asarray(rollouts.lengths)):
        path = path_from_tokens(row[:length], policy.vocabulary)
        assert read_path_data(path).error is None
        letters |= {word for word in path.split() if word.isalpha()}
    assert len(letters) >= 8 and letters & set("CQST") and letters & set("cqst")
    assert (drawn.edges.valid.sum(axis=1) >= 2).all()
    assert drawn.edges.valid.sum(axis=1).max() > policy.config.paths.max_new_tokens // 2
