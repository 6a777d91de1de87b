"""The automaton: everything it lets through is proper, and everything proper gets through."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strict_parser import is_accepted, spell

from moonseg_jax.config import tiny
from moonseg_jax.errors import UserError
from moonseg_jax.paths.grammar import Grammar, polygon_grammar
from moonseg_jax.paths.vocabulary import Vocabulary

CONFIG = tiny()
PATHS = CONFIG.paths
SIZE = CONFIG.text.vocabulary
VOCABULARY = Vocabulary.from_config(PATHS)
SHORTEST = {False: 12, True: 14}


@functools.cache
def grammar(explicit: bool = False, allow_no_target: bool = False) -> Grammar:
    return polygon_grammar(VOCABULARY, PATHS, SIZE, explicit=explicit, allow_no_target=allow_no_target)


LENGTH, ROWS = 48, 16


@jax.jit
def sample(grammar: Grammar, seed: int, weights: jax.Array, budget: int) -> tuple[jax.Array, jax.Array]:
    """Random completions under the mask [ROWS, LENGTH], and how many tokens were allowed at each place."""

    def step(state, inputs):
        key, remaining = inputs
        mask = grammar.mask(state, jnp.full(ROWS, remaining))
        token = jax.random.categorical(key, jnp.where(mask, weights, -jnp.inf))
        return grammar.advance(state, token), (token, mask.sum(axis=-1))

    start = jnp.full(ROWS, grammar.initial)
    keys = jax.random.split(jax.random.key(seed), LENGTH)
    _, (tokens, allowed) = jax.lax.scan(step, start, (keys, budget - jnp.arange(LENGTH)))
    return tokens.T, allowed.T


def weights(close: float, end: float) -> jax.Array:
    """Logits that make closing and ending more or less likely than numbers."""
    return jnp.zeros(SIZE).at[VOCABULARY.command_ids["Z"]].set(close).at[PATHS.eos].set(end)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    budget=st.sampled_from([12, 13, 14, 15, 17, 20, 33, 48]),
    explicit=st.booleans(),
    close=st.sampled_from([-20.0, 0.0, 4.0, 20.0]),
    end=st.sampled_from([-20.0, 0.0, 20.0]),
)
def test_every_sampled_sequence_is_proper_and_ends_within_the_budget(seed, budget, explicit, close, end):
    budget = max(budget, SHORTEST[explicit])
    tokens, _ = sample(grammar(explicit), seed, weights(close, end), budget)
    for row in np.asarray(tokens).tolist():
        assert row.index(PATHS.eos) < budget
        assert is_accepted(row, VOCABULARY, PATHS, explicit=explicit), spell(row, VOCABULARY, PATHS)


def test_forced_tokens_have_exactly_one_allowed_id():
    tokens, allowed = sample(grammar(), 0, weights(2.0, 0.0), LENGTH)
    tokens, allowed = np.asarray(tokens), np.asarray(allowed)
    assert (allowed[:, :4] == 1).all()
    assert tokens[0, :4].tolist() == [
        PATHS.coord_token,
        PATHS.coord_token,
        PATHS.size_token,
        VOCABULARY.command_ids["M"],
    ]
    assert (allowed[:, 4:10] == 33).all()
    after_end = np.cumsum(tokens == PATHS.eos, axis=1) > 1
    assert after_end.any() and (allowed[after_end] == 1).all()


@pytest.mark.parametrize("explicit", [False, True])
def test_a_tight_budget_leaves_one_way_of_the_shortest_form(explicit):
    shortest = SHORTEST[explicit]
    _, allowed = sample(grammar(explicit), 0, weights(0.0, 0.0), shortest)
    classes = np.asarray(allowed)[0, :shortest].tolist()
    assert classes.count(33) == 6 and classes.count(1) == shortest - 6


def test_masks_keep_room_for_closing():
    """After three vertices with three tokens left another vertex is too long: it needs x, y, Z and EOS."""
    automaton = grammar()
    move, close = VOCABULARY.command_ids["M"], VOCABULARY.command_ids["Z"]
    zero = int(VOCABULARY.integer_ids[0])
    state = jnp.asarray(automaton.initial)
    for token in [PATHS.coord_token, PATHS.coord_token, PATHS.size_token, move, *[zero] * 6]:
        state = automaton.advance(state, jnp.asarray(token))
    allowed = {left: set(np.flatnonzero(automaton.mask(state, jnp.asarray(left)))) for left in (2, 3, 4)}
    assert allowed[2] == allowed[3] == {close}
    assert allowed[4] == {close, *VOCABULARY.integer_ids}
    closed = automaton.advance(state, jnp.asarray(close))
    assert set(np.flatnonzero(automaton.mask(closed, jnp.asarray(8)))) == {PATHS.eos}
    assert set(np.flatnonzero(automaton.mask(closed, jnp.asarray(9)))) == {PATHS.eos, move}


def test_too_small_a_budget_still_allows_the_shortest_way():
    state = jnp.arange(len(grammar().tokens_to_end))
    assert grammar().mask(state, jnp.full_like(state, -3)).any(axis=-1).all()


@pytest.mark.parametrize("explicit", [False, True])
def test_every_form_the_parser_accepts_is_reachable(explicit):
    """All words over the alphabet of forms up to 24 tokens, judged by the parser and by the automaton."""
    automaton = grammar(explicit)
    number, line = int(VOCABULARY.integer_ids[7]), VOCABULARY.command_ids["L"]
    move, close = VOCABULARY.command_ids["M"], VOCABULARY.command_ids["Z"]
    first, rest = [move, number, number], [line, number, number] if explicit else [number, number]
    budget, count = 24, 0
    for shape in itertools.chain.from_iterable(itertools.product(range(1, 9), repeat=n) for n in (1, 2, 3)):
        path = [token for vertices in shape for token in [*first, *rest * (vertices - 1), close]]
        row = [PATHS.coord_token, PATHS.coord_token, PATHS.size_token, *path, PATHS.eos]
        if len(row) > budget:
            continue
        expected = is_accepted(row, VOCABULARY, PATHS, explicit=explicit)
        assert accepted_by(automaton, row, budget) == expected, shape
        count += expected
    # One part of 3..8 or two of at most 8 vertices together; with letters, one of 3..6 or two of three each.
    assert count == (4 + 1 if explicit else 6 + 6)


def accepted_by(automaton: Grammar, row: list[int], budget: int) -> bool:
    return bool(_allowed(automaton, jnp.asarray(row + [PATHS.eos] * (32 - len(row))), budget)[: len(row)].all())


@jax.jit
def _allowed(automaton: Grammar, row: jax.Array, budget: int) -> jax.Array:
    masks = automaton.mask(automaton.states(row[None])[0], budget - jnp.arange(len(row)))
    return jnp.take_along_axis(masks, row[:, None], axis=1)[:, 0]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_broken_sequences_are_stopped_by_the_mask(data):
    """One token of a proper completion is replaced: the mask and the parser agree on the result."""
    tokens, _ = sample(grammar(), data.draw(st.integers(0, 1000)), weights(3.0, 0.0), 30)
    row = np.asarray(tokens)[0, :30].tolist()
    choices = [*VOCABULARY.command_ids.values(), *range(30), *VOCABULARY.integer_ids.tolist()]
    row[data.draw(st.integers(0, 29))] = data.draw(st.sampled_from(choices))
    assert accepted_by(grammar(), row, 30) == is_accepted(row, VOCABULARY, PATHS)


def test_no_target_is_allowed_only_where_asked_for():
    first = jnp.asarray(grammar().initial)
    assert not grammar().mask(first, jnp.asarray(48))[PATHS.eos]
    allowing = grammar(allow_no_target=True)
    assert set(np.flatnonzero(allowing.mask(first, jnp.asarray(48)))) == {PATHS.coord_token, PATHS.eos}
    ended = allowing.advance(first, jnp.asarray(PATHS.eos))
    assert set(np.flatnonzero(allowing.mask(ended, jnp.asarray(47)))) == {PATHS.eos}


def test_states_equal_advancing_token_by_token():
    tokens, _ = sample(grammar(), 5, weights(3.0, 0.0), LENGTH)
    before = np.asarray(jax.jit(grammar().states)(tokens))
    state = jnp.full(ROWS, grammar().initial)
    for place in range(LENGTH):
        np.testing.assert_array_equal(before[:, place], state)
        state = grammar().advance(state, tokens[:, place])


def test_a_vocabulary_too_small_for_the_grammar_is_refused():
    with pytest.raises(UserError, match=r"text\.vocabulary is 60"):
        polygon_grammar(VOCABULARY, PATHS, 60)
