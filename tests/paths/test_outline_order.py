"""Random order of outlines: the same drawing, and what the choice costs the one who must guess it."""

import collections
import itertools

import numpy as np
import pytest

from moonseg_jax.paths.fill import fill, winding_numbers
from moonseg_jax.paths.outline_order import order_entropy, shuffled_order
from moonseg_jax.paths.raster import coverage
from moonseg_jax.types import EdgeBatch

OUTLINE = np.array([[30, 0], [90, 10], [70, 90], [5, 60]])
HOLE = np.array([[40, 30], [35, 50], [55, 45]])
OTHER = np.array([[88, 8], [120, 40], [80, 60]])
"""A part of its own that rounding has pushed over the edge of the first."""
PATH = (OUTLINE, HOLE, OTHER)


def words(polygons):
    return tuple(tuple(map(tuple, polygon.tolist())) for polygon in polygons)


def every_order(polygons):
    """All orders by their definition: one direction for all, a start for each."""
    for direction in (1, -1):
        ways = [[np.roll(p[::direction], -start, axis=0) for start in range(len(p))] for p in polygons]
        yield from map(words, itertools.product(*ways))


def edges(polygons) -> EdgeBatch:
    points = np.concatenate([np.stack([p, np.roll(p, -1, axis=0)], axis=1) for p in polygons])[None] / 128
    numbers = np.repeat(np.arange(len(polygons)), [len(p) for p in polygons])[None]
    return EdgeBatch(points=points.astype(np.float32), valid=np.ones(numbers.shape, bool), subpath=numbers)


def test_every_order_is_drawn_equally_often_and_is_the_same_set_of_points():
    expected = set(every_order(PATH[:2]))
    assert len(expected) == 2 * 4 * 3
    rng = np.random.default_rng(0)
    drawn = collections.Counter(words(shuffled_order(PATH[:2], rng)) for _ in range(2400))
    assert drawn.keys() == expected
    chi_square = sum((count - 100) ** 2 / 100 for count in drawn.values())
    assert chi_square < 49.7, "23 degrees of freedom: one fair draw in a thousand is above"


def test_masks_are_the_same_to_the_last_bit():
    """Coverage on device is a sum of floats: pixels that are half covered to rounding may fall on either side."""
    canonical = fill(PATH, 128, 128)
    assert canonical.any() and not canonical[42, 43]
    drawn = np.asarray(coverage(edges(PATH), 89))
    rng = np.random.default_rng(1)
    for _ in range(12):
        order = shuffled_order(PATH, rng)
        np.testing.assert_array_equal(fill(order, 128, 128), canonical)
        np.testing.assert_allclose(coverage(edges(order), 89), drawn, atol=1e-5)
        decided = np.abs(drawn - 0.5) > 1e-5
        np.testing.assert_array_equal((np.asarray(coverage(edges(order), 89)) > 0.5)[decided], drawn[decided] > 0.5)
        assert (~decided).sum() < 10


def test_one_direction_for_all_is_what_the_fill_rule_asks_for():
    """A hole reversed alone is filled; a part reversed alone cancels where it overlaps with its neighbour."""
    assert winding_numbers((OUTLINE, HOLE), 128, 128)[42, 43] == 0
    assert winding_numbers((OUTLINE, HOLE[::-1]), 128, 128)[42, 43] == 2
    assert (fill((OUTLINE, OTHER), 128, 128) & ~fill((OUTLINE, OTHER[::-1]), 128, 128)).sum() > 0


@pytest.mark.parametrize("sizes", [(3,), (4, 3), (3, 3, 5)])
def test_the_best_predictor_pays_the_entropy_of_the_order(sizes):
    """Chain rule over vertices: log n at a start, log 2 at the second vertex of the path, 0 at all others."""
    polygons = [10 * k + np.arange(2 * n).reshape(n, 2) ** 2 for k, n in enumerate(sizes)]
    orders = [sum(order, ()) for order in every_order(polygons)]
    length = sum(sizes)
    paid = np.zeros(length)
    for place in range(length):
        after = collections.Counter(order[:place] for order in orders)
        both = collections.Counter(order[: place + 1] for order in orders)
        paid[place] = -np.mean([np.log(both[order[: place + 1]] / after[order[:place]]) for order in orders])
    expected = np.zeros(length)
    expected[np.cumsum((0, *sizes[:-1]))] = np.log(sizes)
    expected[1] += np.log(2)
    np.testing.assert_allclose(paid, expected, atol=1e-12)
    assert order_entropy(sizes) == pytest.approx(paid.sum())


def test_entropy_by_hand():
    assert order_entropy([4]) == pytest.approx(np.log(8))
    assert order_entropy([8, 4]) == pytest.approx(6 * np.log(2))
    assert order_entropy([]) == 0.0
