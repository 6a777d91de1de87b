"""Keys that nobody needs are not read, and the others give plain softmax attention."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import micro

from moonseg_jax.model import pages, segments
from moonseg_jax.model.attention_parts import in_turns, merge, over_keys
from moonseg_jax.model.pages import Cache, empty_caches, over_pages, write
from moonseg_jax.model.segments import Seats, Segment, over_segment

ROWS, HEADS, WIDTH, PLACES = 5, 2, 8, 12


@pytest.fixture
def choosing(monkeypatch):
    """Pages of four places, and segments chosen from, however small they are."""
    monkeypatch.setattr(pages, "PAGE", 4)
    monkeypatch.setattr(pages, "WORTH_CHOOSING", 0)
    monkeypatch.setattr(segments, "WORTH_CHOOSING", 0)
    monkeypatch.setattr(segments, "MOST_TURNS", 2)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax_attention(query, keys, values):
    """One query, worked in NumPy."""
    logits = keys @ query / np.sqrt(len(query))
    weights = np.exp(logits - logits.max())
    return weights @ values / weights.sum()


@pytest.mark.parametrize("fresh", [1, 3])
def test_pages_give_attention_to_own_tokens_and_unused_ones_are_not_read(choosing, fresh):
    keys, values = drawn(ROWS, PLACES, HEADS, WIDTH), drawn(ROWS, PLACES, HEADS, WIDTH, seed=1)
    queries = jnp.array(drawn(ROWS, HEADS, fresh, WIDTH, seed=2))
    index = jnp.array([0, 3, 4, 9, 7])[:, None] + jnp.arange(fresh)
    cache = Cache(
        keys=jnp.full((ROWS * 3, HEADS, 4, WIDTH), jnp.nan), values=jnp.full((ROWS * 3, HEADS, 4, WIDTH), jnp.nan)
    )
    places = np.broadcast_to(np.arange(PLACES), (ROWS, PLACES))
    used = places <= (index[:, -1:] // 4 * 4 + 3)
    full = write(cache, keys, values, places)
    of_used = used.reshape(ROWS * 3, 4)[:, None, :, None]
    cache = Cache(keys=jnp.where(of_used, full.keys, jnp.nan), values=jnp.where(of_used, full.values, jnp.nan))
    assert np.isnan(cache.keys).any()
    got = merge([over_pages(queries, cache, index)])
    for row in range(ROWS):
        for head in range(HEADS):
            for token in range(fresh):
                until = index[row, token] + 1
                want = softmax_attention(queries[row, head, token], keys[row, :until, head], values[row, :until, head])
                np.testing.assert_allclose(got[row, head, token], want, atol=1e-6)


def test_small_caches_are_one_page_per_row_and_large_ones_have_room_for_all_places():
    text = micro().text
    (small, *_) = empty_caches(text, 3, 50, jnp.float32)
    assert small.keys.shape == (3, text.heads, 50, text.head_width)
    rows = pages.WORTH_CHOOSING // text.width // 300 + 1
    (large, *_) = empty_caches(text, rows, 300, jnp.float32)
    assert large.keys.shape == (rows * 10, text.heads, 32, text.head_width)


def test_segments_nobody_sits_at_are_not_read(choosing, monkeypatch):
    segments_count, seats_each, keys_each = 5, 2, 3
    keys = drawn(segments_count, HEADS, keys_each, WIDTH)
    values = drawn(segments_count, HEADS, keys_each, WIDTH, seed=1)
    queries = jnp.array(drawn(ROWS, HEADS, 1, WIDTH, seed=2))
    valid = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0]], bool)
    seat_of_row = np.array([9, 0, 4, 1, 5])
    row_of_seat, taken = np.zeros(10, int), np.zeros(10, bool)
    row_of_seat[seat_of_row], taken[seat_of_row] = np.arange(ROWS), True
    for empty in (1, 3):
        keys[empty] = values[empty] = np.nan
    seats = Seats(row_of_seat=row_of_seat, seat_of_row=seat_of_row, taken=taken)
    segment = Segment(keys=jnp.array(keys), values=jnp.array(values), valid=jnp.array(valid))
    asked_for = []
    monkeypatch.setattr(
        segments, "in_turns", lambda some, wanted, size: asked_for.append(wanted) or in_turns(some, wanted, size)
    )
    got = merge([over_segment(queries, segment, seats)])
    assert [wanted.tolist() for wanted in asked_for] == [[True, False, True, False, True]]
    for row in range(ROWS):
        at = seat_of_row[row] // seats_each
        for head in range(HEADS):
            want = softmax_attention(queries[row, head, 0], keys[at, head, valid[at]], values[at, head, valid[at]])
            np.testing.assert_allclose(got[row, head, 0], want, atol=1e-6)


def test_parts_merge_to_the_softmax_over_all_their_keys():
    query, keys, values = drawn(1, WIDTH), drawn(7, WIDTH, seed=1) * 20, drawn(7, WIDTH, seed=2)
    nothing = over_keys(query, keys, values, np.zeros((1, 7), bool))
    parts = [over_keys(query, keys[:2], values[:2], None), nothing, over_keys(query, keys[2:], values[2:], None)]
    np.testing.assert_allclose(merge(parts)[0], softmax_attention(query[0], keys, values), atol=1e-6)
