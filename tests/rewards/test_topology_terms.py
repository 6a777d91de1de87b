"""Topology terms against numbers worked by hand and against labelled parts."""

from __future__ import annotations

import cv2
import jax
import numpy as np
import pytest
import shapely
from reward_samples import OBJECTS, edge_batch, rectangle, with_idle_vertices

from moonseg_jax.rewards.topology import (
    crossing_cost,
    crossings,
    euler_agreement,
    euler_characteristic,
    speck_cost,
    subpath_areas,
)
from moonseg_jax.types import EdgeBatch

SIZE = (33, 40)
euler = jax.jit(euler_characteristic)
agreement = jax.jit(euler_agreement)
areas_of = jax.jit(subpath_areas)
specks_cost = jax.jit(speck_cost)
crossed, crossings_cost = jax.jit(crossings), jax.jit(crossing_cost)


def path(*polygons: np.ndarray, slots: int = 64) -> EdgeBatch:
    """Edges of one path, without the leading dimension."""
    return jax.tree.map(lambda leaf: leaf[0], edge_batch([polygons], slots))


def placed(mask: np.ndarray) -> np.ndarray:
    """The mask in a corner of a larger one, at the border."""
    return np.pad(mask, [(0, SIZE[0] - mask.shape[0]), (SIZE[1] - mask.shape[1], 0)])


def test_parts_less_holes_by_hand():
    frame = np.ones((5, 5), bool)
    frame[1:-1, 1:-1] = False
    nested = np.pad(frame, 2)
    nested[4, 4] = True
    masks = {"frame": frame, "frame with an island": nested, "pixels at corners": np.eye(3, dtype=bool)}
    masks |= {"empty": np.zeros((4, 4), bool), "full": np.ones(SIZE, bool)}
    assert {name: int(euler(placed(mask))) for name, mask in masks.items()} == {
        "frame": 0, "frame with an island": 1, "pixels at corners": 1, "empty": 0, "full": 1,
    }  # fmt: skip


def test_parts_less_holes_equal_labels_on_random_masks():
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = cv2.GaussianBlur(rng.normal(size=SIZE), (0, 0), 1.2) > 0
        parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
        holes = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)[0] - 2
        assert int(euler(mask)) == parts - holes


def test_agreement_by_hand():
    two, full, empty = np.zeros(SIZE, bool), np.ones(SIZE, bool), np.zeros(SIZE, bool)
    two[1, 1] = two[5, 5] = True
    found = [float(agreement(first, two)) for first in (two, full, empty)]
    assert found == pytest.approx([1, 1 / 2, 1 / 3])


def test_areas_of_subpaths_do_not_depend_on_direction_or_on_numbers():
    one = path(rectangle(0.5, 0.5, 0.4, 0.2), rectangle(0.2, 0.2, 0.1, 0.1)[::-1])
    for subpath in (one.subpath, one.subpath * 7 + 100):
        areas, present = areas_of(one.replace(subpath=subpath))
        assert np.asarray(areas)[np.asarray(present)].tolist() == pytest.approx([0.08, 0.01], abs=1e-6)


def test_specks_are_counted_against_all_subpaths():
    """Specks of 1e-4 of the image, where half of the image is true: 2 of 3 below .5 % of that, none below .01 %."""
    specks = [rectangle(0.3, 0.3, 0.01, 0.01)] * 2
    truth = np.zeros((8, 8), bool)
    truth[:4] = True
    one = path(rectangle(0.5, 0.25, 1, 0.5), *specks)
    assert float(specks_cost(one, truth, share=0.005)) == pytest.approx(-2 / 3)
    assert float(specks_cost(one, truth, share=0.0001)) == 0.0
    assert float(specks_cost(path(), truth, share=0.005)) == 0.0


def test_crossings_by_hand():
    bow_tie = np.array([(0.1, 0.1), (0.9, 0.9), (0.9, 0.1), (0.1, 0.9)])
    overlapping = [rectangle(0.4, 0.4, 0.4, 0.4), rectangle(0.55, 0.55, 0.4, 0.4)]
    assert int(crossed(path(bow_tie))) == 1
    assert int(crossed(path(*overlapping))) == 2
    assert float(crossings_cost(path(*overlapping), 8.0)) == -0.25
    assert float(crossings_cost(path(bow_tie, *overlapping), 2.0)) == -1.0


def test_touching_and_repeated_outlines_do_not_cross():
    square = rectangle(0.37, 0.41, 0.3, 0.2)
    slanted = square @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + np.array([0.2, 0.1])
    divided = with_idle_vertices([slanted], 7)
    assert int(crossed(path(square, square, square[::-1]))) == 0
    assert int(crossed(path(*divided))) == 0
    many = [path(*with_idle_vertices(one.honest, 8), slots=144) for one in OBJECTS.values()]
    assert [int(crossed(edges)) for edges in many] == [0, 0, 0, 0]
    assert int(crossed(path(np.full((3, 2), 0.5)))) == 0


@pytest.mark.parametrize("seed", range(4))
def test_crossings_equal_those_of_exact_geometry(seed):
    points = np.random.default_rng(seed).uniform(size=(12, 2))
    lines = [shapely.LineString(pair) for pair in zip(points, np.roll(points, -1, axis=0))]
    expected = sum(first.crosses(second) for i, first in enumerate(lines) for second in lines[i + 1 :])
    assert expected > 5
    assert int(crossed(path(points))) == expected


def test_edges_that_are_not_valid_cross_nothing():
    one = path(np.array([(0.1, 0.1), (0.9, 0.9), (0.9, 0.1), (0.1, 0.9)]))
    assert int(crossed(one.replace(valid=np.zeros_like(one.valid)))) == 0
