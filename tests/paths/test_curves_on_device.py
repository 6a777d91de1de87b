"""Curves, signs, relative and smooth commands on device, against the host's reader of path data."""

from __future__ import annotations

import functools
from random import Random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapely
from strict_dialect import proper_path

from moonseg_jax.config import tiny
from moonseg_jax.paths.decode import edges_from_tokens
from moonseg_jax.paths.engine.completion_text import CompletionTextError, group_pieces
from moonseg_jax.paths.engine.path_data import flatten, read_path_data
from moonseg_jax.paths.engine.render import soft_fill
from moonseg_jax.paths.flatten_on_device import EDGES_PER_TOKEN, TOLERANCE, FlattenedPaths, edges_from_curves
from moonseg_jax.paths.pen import CurveTables
from moonseg_jax.paths.raster import coverage
from moonseg_jax.paths.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_config(tiny().paths)
SIZE = tiny().text.vocabulary
TABLES = CurveTables.from_vocabulary(VOCABULARY, SIZE)
POLYGON_TABLES = VOCABULARY.tables(SIZE)
LENGTH, ROWS = 64, 100
UNIT_BOX = (0.5, 0.5, 1.0, 1.0)
ROUNDING = 0.01
"""Path units: float32 beside float64, and the tolerance of the host's polygons."""
_read = jax.jit(edges_from_curves, static_argnames="max_edges")
_decode = jax.jit(edges_from_tokens, static_argnames="max_edges")


def padded(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    ids, lengths = np.zeros((ROWS, LENGTH), np.int32), np.zeros(ROWS, np.int32)
    for row, text in enumerate(texts):
        words = text.split()
        ids[row, : len(words)] = [VOCABULARY.tokenizer.token_to_id(word) for word in words]
        lengths[row] = len(words)
    return ids, lengths


def read(texts: list[str], max_edges: int | None = None) -> FlattenedPaths:
    """In batches of one size, so that few programs are compiled."""
    batches = [texts[start : start + ROWS] for start in range(0, len(texts), ROWS)]
    boxes = jnp.array([UNIT_BOX] * ROWS)
    parts = [jax.device_get(_read(*padded(batch), boxes, TABLES, max_edges=max_edges)) for batch in batches]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(texts)], *parts)


def polygons(paths: FlattenedPaths, row: int) -> list[np.ndarray]:
    """Subpaths in path units."""
    valid, subpath = paths.edges.valid[row], paths.edges.subpath[row]
    return [paths.edges.points[row, valid & (subpath == n), 0] * 960 for n in np.unique(subpath[valid])]


def read_by_host(text: str) -> tuple[list[np.ndarray], bool]:
    """Polygons in path units, and whether there was no error; nothing at all for what is no path text."""
    try:
        grouped = group_pieces(text.split())
    except CompletionTextError:
        return [], False
    data = read_path_data(" ".join(item if isinstance(item, str) else f"{item[0]} {item[1]}" for item in grouped))
    return [flatten(subpath, ROUNDING / 4) for subpath in data.subpaths], data.error is None


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Farthest any vertex of one ring lies from the other, in both directions."""
    rings = [shapely.LineString(np.concatenate([ring, ring[:1]])) for ring in (ours, theirs)]
    return float(shapely.hausdorff_distance(*rings))


@functools.cache
def random_paths() -> tuple[str, ...]:
    random = Random(0)
    return tuple(proper_path(random, VOCABULARY.integers.tolist(), LENGTH) for _ in range(300))


def test_every_curve_stays_within_the_tolerance_of_the_hosts():
    texts = list(random_paths())
    paths = read(texts, max_edges=2048)
    assert paths.whole.all() and paths.deviation.max() <= TOLERANCE
    farthest = []
    for row, text in enumerate(texts):
        theirs, whole = read_by_host(text)
        ours = polygons(paths, row)
        assert whole and len(ours) == len(theirs)
        farthest += [distance(*pair) for pair in zip(ours, theirs)]
    assert 0.5 * TOLERANCE < max(farthest) <= TOLERANCE + ROUNDING


def test_with_too_few_edges_the_stated_deviation_grows_and_holds():
    texts = list(random_paths())[:100]
    paths = read(texts, max_edges=LENGTH)
    assert (paths.deviation > 4 * TOLERANCE).sum() > 20
    for row, text in enumerate(texts):
        theirs, _ = read_by_host(text)
        found = max(distance(*pair) for pair in zip(polygons(paths, row), theirs, strict=True))
        assert found <= paths.deviation[row] + ROUNDING, text


def test_a_disc_has_the_edges_and_the_area_it_should():
    """Four cubics; relative, smooth and signed, and its twin of absolute ones."""
    texts = [
        "m 480 0 c 270 0 480 210 480 480 s - 210 480 - 480 480 s - 480 - 210 - 480 - 480 s 210 - 480 480 - 480 z",
        "M 480 0 C 750 0 960 210 960 480 960 750 750 960 480 960 210 960 0 750 0 480 0 210 210 0 480 0 Z",
    ]
    paths = read(texts)
    assert paths.edges.valid.shape[1] == EDGES_PER_TOKEN * LENGTH
    (relative,), (absolute,) = polygons(paths, 0), polygons(paths, 1)
    np.testing.assert_allclose(relative, absolute, atol=1e-3)
    assert paths.edges.valid.sum(axis=1).tolist() == [77, 77]
    (exact,), _ = read_by_host(texts[1])
    drawn = np.asarray(coverage(jax.tree.map(jnp.asarray, paths.edges), 96))
    assert drawn[0].mean() == pytest.approx(shapely.Polygon(exact).area / 960**2, rel=1.5e-3)
    np.testing.assert_allclose(drawn[0], soft_fill([exact / 10], 96, 96), atol=0.08)


@pytest.mark.parametrize(
    ("text", "corners"),
    [
        ("m 30 60 l 90 0 0 90 z", [(30, 60), (120, 60), (120, 150)]),
        ("M 30 60 90 0 l 30 30 - 30 30 z", [(30, 60), (90, 0), (120, 30), (90, 60)]),
        ("M 0 0 H 30 960 v 90 30 h - 60 - 30 Z", [(0, 0), (960, 0), (960, 120), (870, 120)]),
        ("M 0 0 T 90 0 L 90 90 Z", [(0, 0), (90, 0), (90, 90)]),
    ],
    ids=["relative", "relative lines after absolute ones", "pairs after H and V", "smooth after no curve"],
)
def test_forms_worked_by_hand(text, corners):
    (ring,) = polygons(read([text]), 0)
    assert distance(ring, np.array(corners)) < 1e-3


def test_a_subpath_may_begin_where_the_last_one_began():
    first, second, third = polygons(read(["M 30 30 60 30 60 60 z l 90 0 0 90 z m 30 0 60 0 0 60 z"]), 0)
    np.testing.assert_allclose(first, [(30, 30), (60, 30), (60, 60)], atol=1e-3)
    np.testing.assert_allclose(second, [(30, 30), (120, 30), (120, 120)], atol=1e-3)
    np.testing.assert_allclose(third, [(60, 30), (120, 30), (120, 90)], atol=1e-3)


@pytest.mark.parametrize(
    ("text", "corners", "whole"),
    [
        ("M 0 0 90 0 90 90 30 Z", 3, True),
        ("M 0 0 90 0 90 90", 3, True),
        ("M 0 0 90 0 90 90 C 0 0 60 60 Z M 0 0 90 0 90 90 Z", 3, False),
        ("M 0 0 90 0 90 90 H 30 Z L 0 60 60 60 Z", 3, False),
        ("M 0 0 90 0 90 90 A 30 30 0 0 0 60 60 Z", 3, False),
        ("M 0 0 90 0 90 90 Z 30 30 L 0 60 60 60 Z", 3, False),
        ("L 0 0 90 0 90 90 Z", 0, False),
        ("M 0 0 90 0 90 90 -", 0, False),
        ("M 0 0 90 0 - L 90 90 Z", 0, False),
        ("M 0 0 - - 90 0 90 90 Z", 0, False),
        ("90 0 M 0 0 90 0 90 90 Z", 0, False),
        ("", 0, True),
    ],
)
def test_errors_stop_the_path_where_renderers_stop(text, corners, whole):
    paths = read([text])
    assert (int(paths.edges.valid.sum()), bool(paths.whole[0])) == (corners, whole)


def test_any_words_are_read_as_the_host_reads_them():
    """Random words: the same subpaths up to the same error, or nothing where the text is no path."""
    random, texts = Random(2), []
    words = [*"MLCQSTZmlcqstz" * 2, "-", *map(str, VOCABULARY.integers.tolist() * 2)]
    for _ in range(3000):
        start = random.choice(["", "M 0 30", "m 30 0 60 30 30 90", "M 30 30 c 0 90 90 0 60 60"])
        texts.append(" ".join([start, *random.choices(words, k=random.randint(0, 24))]))
    paths = read(texts, max_edges=2048)
    kinds = set()
    for row, text in enumerate(texts):
        theirs, whole = read_by_host(text)
        ours = polygons(paths, row)
        assert (len(ours), bool(paths.whole[row])) == (len(theirs), whole), text
        assert all(distance(*pair) <= paths.deviation[row] + ROUNDING for pair in zip(ours, theirs)), text
        kinds.add((whole, bool(theirs)))
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}


def test_polygons_are_read_as_the_decoder_of_polygons_reads_them():
    random, texts = Random(3), []
    for _ in range(ROWS):
        pairs = [f"{random.choice(VOCABULARY.integers)} {random.choice(VOCABULARY.integers)}" for _ in range(9)]
        joined = random.choice([" ", " L "]).join
        texts.append(f"M {joined(pairs[:4])} Z M {joined(pairs[4:])} Z")
    box = np.random.default_rng(0).random((ROWS, 4), np.float32)
    theirs, ours = (_decode(*padded(texts), box, tables, max_edges=LENGTH) for tables in (POLYGON_TABLES, TABLES))
    np.testing.assert_array_equal(ours.valid, theirs.valid)
    np.testing.assert_array_equal(np.where(ours.valid, ours.subpath, 0), np.where(theirs.valid, theirs.subpath, 0))
    np.testing.assert_allclose(ours.points, theirs.points, atol=1e-6)


def test_room_for_fewer_edges_than_lines_is_refused():
    with pytest.raises(ValueError, match="max_edges is 31"):
        read(["M 0 0 30 0 30 30 Z"], max_edges=31)
