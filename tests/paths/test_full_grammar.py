"""The `full` automaton: everything it lets through is proper, everything proper gets through, for learners too."""

from __future__ import annotations

import dataclasses
from random import Random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strict_dialect import is_proper, proper_path
from strict_parser import is_accepted, spell

from moonseg_jax.config import small, tiny
from moonseg_jax.errors import UserError
from moonseg_jax.paths.engine.completion_text import path_from_tokens
from moonseg_jax.paths.engine.path_data import read_path_data
from moonseg_jax.paths.full_grammar import full_grammar
from moonseg_jax.paths.grammar import Grammar
from moonseg_jax.paths.vocabulary import Vocabulary

PATHS = tiny().paths
SIZE = tiny().text.vocabulary
VOCABULARY = Vocabulary.from_config(PATHS)
GRAMMAR = full_grammar(VOCABULARY, PATHS, SIZE)
SHORTEST = 12
LENGTH, ROWS = 64, 16
LETTERS = VOCABULARY.command_ids
BOX = [PATHS.coord_token, PATHS.coord_token, PATHS.size_token]


@jax.jit
def sample(grammar: Grammar, seed: int, bias: jax.Array, budget: int) -> tuple[jax.Array, jax.Array]:
    """Completions [ROWS, LENGTH] drawn from random logits under the mask, and the masks [ROWS, LENGTH, V]."""

    def step(state, inputs):
        key, remaining = inputs
        for_logits, for_token = jax.random.split(key)
        mask = grammar.mask(state, jnp.full(ROWS, remaining))
        logits = jax.random.normal(for_logits, (ROWS, SIZE)) + bias
        token = jax.random.categorical(for_token, jnp.where(mask, logits, -jnp.inf))
        return grammar.advance(state, token), (token, mask)

    keys = jax.random.split(jax.random.key(seed), LENGTH)
    _, (tokens, masks) = jax.lax.scan(step, jnp.full(ROWS, grammar.initial), (keys, budget - jnp.arange(LENGTH)))
    return tokens.T, masks.swapaxes(0, 1)


@jax.jit
def learners_masks(grammar: Grammar, tokens: jax.Array, budget: int) -> jax.Array:
    remaining = jnp.broadcast_to(budget - jnp.arange(tokens.shape[1]), tokens.shape)
    return grammar.mask(grammar.states(tokens), remaining)


def bias(letters: float, close: float, end: float) -> jax.Array:
    """What makes letters, `Z` and EOS more or less likely than numbers."""
    ids = jnp.array([*LETTERS.values(), VOCABULARY.minus_id])
    return jnp.zeros(SIZE).at[ids].add(letters).at[LETTERS["Z"]].add(close).at[PATHS.eos].add(end)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    budget=st.sampled_from([12, 13, 14, 16, 19, 24, 33, 48, 64]),
    letters=st.sampled_from([0.0, 2.0, 4.0]),
    close=st.sampled_from([-20.0, 0.0, 3.0, 20.0]),
    end=st.sampled_from([-20.0, 0.0, 20.0]),
)
def test_every_sampled_sequence_is_proper_ends_in_time_and_is_masked_alike_for_learning(
    seed, budget, letters, close, end
):
    tokens, masks = sample(GRAMMAR, seed, bias(letters, close, end), budget)
    assert bool(jnp.all(learners_masks(GRAMMAR, tokens, budget) == masks))
    for row in np.asarray(tokens).tolist():
        assert row.index(PATHS.eos) < budget
        assert is_proper(row, VOCABULARY, PATHS), spell(row, VOCABULARY, PATHS)


def test_the_official_reader_drops_nothing_of_what_is_sampled():
    seen: set[str] = set()
    for seed in range(6):
        tokens, _ = sample(GRAMMAR, seed, bias(3.0, 1.0, 0.0), LENGTH)
        for row in np.asarray(tokens).tolist():
            words = VOCABULARY.pieces(row)
            path = path_from_tokens(row, VOCABULARY)
            assert len(path.split()) == len(words) - words.count("-")
            assert read_path_data(path).error is None
            seen |= set(words)
    assert set("MLCQSTZmlcqstz-") <= seen and not set("HVAhva") & seen


def ids_of(words: str) -> list[int]:
    return [*BOX, *(VOCABULARY.tokenizer.token_to_id(word) for word in words.split()), PATHS.eos]


@jax.jit
def _allowed(rows: jax.Array, budgets: jax.Array) -> jax.Array:
    masks = learners_masks(GRAMMAR, rows, budgets[:, None])
    return jnp.take_along_axis(masks, rows[..., None], axis=2)[..., 0]


def accepted(rows: list[list[int]], budgets: list[int]) -> list[bool]:
    """Whether the mask allows every token of each row, of at most 128 tokens."""
    padded = jnp.asarray([row + [PATHS.eos] * (128 - len(row)) for row in rows])
    allowed = np.asarray(_allowed(padded, jnp.asarray(budgets)))
    return [bool(marks[: len(row)].all()) for marks, row in zip(allowed, rows)]


def test_every_proper_path_is_reachable_within_its_own_length():
    random = Random(0)
    rows = [ids_of(proper_path(random, VOCABULARY.integers.tolist())) for _ in range(400)]
    assert all(is_proper(row, VOCABULARY, PATHS) for row in rows)
    assert all(accepted(rows, [len(row) for row in rows]))
    longer = [row for row in rows if len(row) > SHORTEST]
    assert len(longer) > 350 and not any(accepted(longer, [len(row) - 1 for row in longer]))


def test_a_changed_token_is_judged_alike_by_mask_and_parser():
    random = Random(1)
    choices = [*LETTERS.values(), VOCABULARY.minus_id, *BOX, PATHS.eos, *VOCABULARY.integer_ids.tolist()[:20], 7, 60]
    rows = []
    for _ in range(1500):
        row = ids_of(proper_path(random, [0, 30, 960], most_words=60))
        place, change = random.randrange(len(row)), random.choice(["replace", "insert", "delete"])
        row[place : place + (change != "insert")] = [] if change == "delete" else [random.choice(choices)]
        rows.append(row if row[-1] == PATHS.eos else [*row, PATHS.eos])
    proper = [is_proper(row, VOCABULARY, PATHS) for row in rows]
    assert accepted(rows, [128] * len(rows)) == proper
    assert 200 < sum(proper) < 1300


@pytest.mark.parametrize(
    "words",
    [
        "M 0 0 30 0 Z",
        "M 0 0 L 30 0 Z",
        "M 0 0 Z",
        "M 0 0 30 0 30 30",
        "M 0 0 C 0 30 30 30 Z",
        "M 0 0 Q 0 30 Z",
        "M 0 0 30 0 30 Z",
        "M 0 0 30 0 30 30 - Z",
        "M 0 0 - - 30 0 30 30 Z",
        "L 0 0 30 0 30 30 Z",
        "M 0 0 30 0 30 30 Z L 60 60 Z",
        "M 0 0 30 0 30 30 Z 0 0 Z",
        "M 0 0 H 30 V 30 Z",
        "M 0 0 H 30 60 V 30 60 Z",
        "M 0 0 A 30 30 0 0 0 60 60 Z",
        "M 0 0 30 0 30 30 M 0 0 30 0 30 30 Z",
        "M M 0 0 30 0 30 30 Z",
        "",
    ],
)
def test_degenerate_and_broken_paths_are_never_allowed(words):
    assert accepted([ids_of(words)], [128]) == [False]


@pytest.mark.parametrize("words", ["M 0 0 Q 480 960 960 0 Z", "m 0 0 c 0 30 30 30 30 0 z", "M 0 0 T 30 0 60 30 z"])
def test_curves_enclose_something_with_fewer_corners(words):
    assert accepted([ids_of(words)], [128]) == [True]


def test_what_the_polygon_grammar_writes_is_allowed_in_both_dialects():
    for words in ("M 0 0 960 0 960 960 Z M 30 30 30 60 60 60 Z", "M 0 0 L 960 0 L 960 960 Z"):
        row = ids_of(words)
        assert is_accepted(row, VOCABULARY, PATHS, explicit="L" in words)
        assert accepted([row], [len(row)]) == [True]


def test_a_tight_budget_leaves_the_shortest_form_only():
    _, masks = sample(GRAMMAR, 0, bias(0.0, 0.0, 0.0), SHORTEST)
    # Box; M or m; six numbers of 33 integers; Z or z; EOS.
    assert np.asarray(masks)[0, :SHORTEST].sum(axis=-1).tolist() == [1, 1, 1, 2, *[33] * 6, 2, 1]


def test_too_small_a_budget_still_allows_the_shortest_way():
    state = jnp.arange(len(GRAMMAR.tokens_to_end))
    assert GRAMMAR.mask(state, jnp.full_like(state, -3)).any(axis=-1).all()


def test_no_target_is_allowed_only_where_asked_for():
    first, budget = jnp.asarray(GRAMMAR.initial), jnp.asarray(48)
    assert set(np.flatnonzero(GRAMMAR.mask(first, budget))) == {PATHS.coord_token}
    allowing = full_grammar(VOCABULARY, PATHS, SIZE, allow_no_target=True)
    assert set(np.flatnonzero(allowing.mask(first, budget))) == {PATHS.coord_token, PATHS.eos}
    ended = allowing.advance(first, jnp.asarray(PATHS.eos))
    assert set(np.flatnonzero(allowing.mask(ended, budget))) == {PATHS.eos}


def test_letters_that_a_tokenizer_lacks_are_left_out():
    poor = dataclasses.replace(VOCABULARY, minus_id=None, command_ids={letter: LETTERS[letter] for letter in "MLZ"})
    tokens, _ = sample(full_grammar(poor, PATHS, SIZE), 0, bias(2.0, 0.0, 0.0), LENGTH)
    rows = np.asarray(tokens).tolist()
    assert all(is_proper(row, VOCABULARY, PATHS) for row in rows)
    assert {word for row in rows for word in VOCABULARY.pieces(row) if not word.isdigit()} == set("MLZ")


def test_a_vocabulary_too_small_for_the_grammar_is_refused():
    with pytest.raises(UserError, match=r"text\.vocabulary is 43"):
        full_grammar(VOCABULARY, PATHS, 43)


def test_the_grid_of_a_larger_preset_is_kept():
    paths = small().paths
    vocabulary = Vocabulary.from_config(paths)
    grammar = full_grammar(vocabulary, paths, small().text.vocabulary)
    letter = grammar.advance(jnp.asarray(3), jnp.asarray(vocabulary.command_ids["m"]))
    allowed = np.flatnonzero(grammar.mask(letter, jnp.asarray(300)))
    assert set(allowed) == {*vocabulary.integer_ids.tolist(), vocabulary.minus_id} and len(allowed) == 194
