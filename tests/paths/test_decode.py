"""Tokens → boxes and edges, against a reading word by word."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mask_samples import blob, smooth_shapes

from moonseg_jax.config import small, tiny
from moonseg_jax.paths.boxes import coordinate_from_bin, size_from_bin
from moonseg_jax.paths.decode import box_from_tokens, edges_from_tokens
from moonseg_jax.paths.raster import coverage
from moonseg_jax.paths.target import encode_target
from moonseg_jax.paths.vocabulary import Vocabulary

CONFIG = small()
PATHS = dataclasses.replace(
    tiny().paths, max_new_tokens=48, trace_tolerance=0.7, tokenizer="embedded:small", coordinate_step=15
)
REGION = dataclasses.replace(tiny().region, coord_bins=128)
VOCABULARY = Vocabulary.from_config(PATHS)
TABLES = VOCABULARY.tables(CONFIG.text.vocabulary)
LENGTH = 32
read_edges = jax.jit(edges_from_tokens)
read_box = jax.jit(box_from_tokens, static_argnames=("region", "paths"))
draw = jax.jit(coverage, static_argnames="size")
UNIT_BOX = jnp.array([[0.5, 0.5, 1.0, 1.0]])


def tokens(text: str) -> tuple[jax.Array, jax.Array]:
    """Words to padded ids [1, LENGTH] and lengths [1]; c, s, $ are coordinate, size and EOS."""
    control = {"c": PATHS.coord_token, "s": PATHS.size_token, "$": PATHS.eos}
    ids = [control[word] if word in control else VOCABULARY.tokenizer.token_to_id(word) for word in text.split()]
    return jnp.array([ids + [0] * (LENGTH - len(ids))]), jnp.array([len(ids)])


def read(text: str, box: jax.Array = UNIT_BOX) -> list[list[tuple[float, ...]]]:
    """Subpaths of edges (x0, y0, x1, y1) in path units of the whole image."""
    edges = read_edges(*tokens(text), box, TABLES)
    rows: dict[int, list[tuple[float, ...]]] = {}
    for points, valid, subpath in zip(*map(np.asarray, (edges.points[0], edges.valid[0], edges.subpath[0]))):
        if valid:
            rows.setdefault(int(subpath), []).append(tuple(np.round(points.ravel() * 960).tolist()))
    return list(rows.values())


TRIANGLE = [(0, 0, 960, 0), (960, 0, 960, 480), (960, 480, 0, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "c c s M 0 0 960 0 960 480 Z $",
        "c c s M 0 0 L 960 0 L 960 480 Z $",
        "c c s M 0 0 L 960 0 960 480 Z $",
        "c c s M 0 0 960 0 960 480 $",
        "c c s M 0 0 960 0 960 480 15 Z $",
        "c c s M 0 0 960 0 960 480",
    ],
    ids=["implicit", "explicit", "mixed", "open", "odd last number", "no end"],
)
def test_forms_of_one_triangle(text):
    assert read(text) == [TRIANGLE]


def test_subpaths_close_on_their_own_first_vertex():
    square = [(15, 15, 30, 15), (30, 15, 30, 30), (30, 30, 15, 15)]
    assert read("c c s M 0 0 960 0 960 480 Z M 15 15 30 15 30 30 Z $") == [TRIANGLE, square]
    assert read("c c s M 0 0 960 0 960 480 M 15 15 30 15 30 30 Z $") == [TRIANGLE, square]


def test_tokens_past_the_length_are_ignored():
    ids, _ = tokens("c c s M 0 0 960 0 960 480 Z $ M 15 15 30 30")
    edges = read_edges(ids, jnp.array([12]), UNIT_BOX, TABLES)
    assert int(edges.valid.sum()) == 3


@pytest.mark.parametrize("text", ["$", "c c s $", "c c s 0 0 960 0 M 15 15 30 30 0 0 Z $", "c c s L 0 0 960 0 $"])
def test_paths_without_a_start_have_no_edges(text):
    assert read(text) == []


def test_points_are_placed_by_the_unclipped_box():
    box = jnp.array([[0.1, 0.9, 0.4, 0.4]])
    ((first, *_),) = read("c c s M 0 0 960 0 480 960 Z $", box)
    assert first == pytest.approx((-0.1 * 960, 0.7 * 960, 0.3 * 960, 0.7 * 960), abs=0.5)


def test_box_reads_first_two_coordinates_and_first_size():
    ids, _ = tokens("c c s M 0 0 15 0 15 15 Z c s $")
    bins = jnp.zeros((1, LENGTH, 2), jnp.int32).at[0, :3].set(jnp.array([(20, 9), (90, 9), (100, 70)]))
    bins = bins.at[0, 11:13].set(127)
    box = read_box(ids, bins, REGION, PATHS)
    expected = [20 / 127, 90 / 127, 2 ** (1000 / 127 - 10), 2 ** (700 / 127 - 10)]
    np.testing.assert_allclose(box[0], expected, rtol=1e-6)


@pytest.mark.parametrize("text", ["$", "c s M 0 0 $", "c c M 0 0 15 0 15 15 Z $"])
def test_incomplete_boxes_are_zero(text):
    ids, _ = tokens(text)
    bins = jnp.full((1, LENGTH, 2), 60)
    np.testing.assert_array_equal(read_box(ids, bins, REGION, PATHS), 0.0)


@pytest.mark.parametrize("explicit", [False, True])
def test_targets_come_back_as_the_mask_they_were_traced_from(explicit):
    """Mask → tokens → box, edges and coverage on device → mask: the reported IoU is met."""
    rng = np.random.default_rng(0)
    masks = [*smooth_shapes().values(), *(blob(rng) for _ in range(10))]
    targets = [
        encode_target(mask, vocabulary=VOCABULARY, paths=PATHS, region=REGION, explicit=explicit) for mask in masks
    ]
    ids, bins = np.zeros((len(masks), 48), np.int32), np.zeros((len(masks), 48, 2), np.int32)
    lengths = np.array([len(target.token_ids) for target in targets])
    for row, target in enumerate(targets):
        ids[row, : lengths[row]], bins[row, : lengths[row]] = target.token_ids, target.bins
    box = read_box(jnp.asarray(ids), jnp.asarray(bins), REGION, PATHS)
    np.testing.assert_allclose(box, [target.box for target in targets], rtol=1e-6)
    drawn = np.asarray(draw(read_edges(ids, lengths, box, TABLES), size=96)) > 0.5
    for mask, target, result in zip(masks, targets, drawn):
        iou = (result & mask).sum() / (result | mask).sum()
        assert iou == pytest.approx(target.iou, abs=0.03)
    mean = np.mean([(result & mask).sum() / (result | mask).sum() for mask, result in zip(masks, drawn)])
    assert mean == pytest.approx(np.mean([target.iou for target in targets]), abs=0.005)


def test_the_default_dialect_leaves_letters_out_and_draws_the_same():
    """Targets with and without the letters of line-tos, where the budget binds neither."""
    paths, line = dataclasses.replace(PATHS, max_new_tokens=400), VOCABULARY.command_ids["L"]
    lengths = {False: 0, True: 0}
    for mask in smooth_shapes().values():
        default, explicit = (
            encode_target(mask, vocabulary=VOCABULARY, paths=paths, region=REGION, **options)
            for options in ({}, {"explicit": True})
        )
        assert line not in default.token_ids
        np.testing.assert_array_equal(explicit.token_ids[explicit.token_ids != line], default.token_ids)
        rows = [np.pad(target.token_ids, (0, 400 - len(target.token_ids))) for target in (default, explicit)]
        counts = np.array([len(target.token_ids) for target in (default, explicit)])
        edges = read_edges(np.stack(rows), counts, jnp.tile(default.box, (2, 1)), TABLES)
        np.testing.assert_array_equal(edges.points[0], edges.points[1])
        lengths[False], lengths[True] = lengths[False] + counts[0], lengths[True] + counts[1]
    assert 1.25 < lengths[True] / lengths[False] < 1.5


def test_reading_survives_any_tokens():
    """Random ids: finite points, no more edges than pairs of tokens, box values in [0, 1]."""
    rng = np.random.default_rng(1)
    ids = jnp.asarray(rng.integers(0, 150, (256, 40)))
    bins = jnp.asarray(rng.integers(0, 128, (256, 40, 2)))
    box = read_box(ids, bins, REGION, PATHS)
    edges = read_edges(ids, jnp.asarray(rng.integers(0, 41, 256)), box, TABLES)
    assert np.isfinite(edges.points).all() and edges.points.shape == (256, 20, 2, 2)
    assert ((np.asarray(box) >= 0) & (np.asarray(box) <= 1)).all()
    values = coordinate_from_bin(np.arange(128), REGION), size_from_bin(np.arange(128), REGION)
    assert set(np.asarray(box[:, 0])) <= {np.float32(0), *values[0]}
