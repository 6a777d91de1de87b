"""Fill rules where subpaths cross, overlap, share edges or nest, against exact planar geometry."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import shapely
import shapely.ops
from raster_samples import edges, exact_areas, square

from moonseg_jax.paths.raster import coverage

SIZE = 32
draw = jax.jit(coverage, static_argnames=("size", "rule"))


def pentagram(turn: float = 0.1) -> np.ndarray:
    angle = turn + np.arange(5) * 4 * np.pi / 5
    return 0.5 + 0.45 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def heptagram() -> np.ndarray:
    angle = 0.2 + np.arange(7) * 6 * np.pi / 7
    return 0.5 + 0.46 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def winding_at(point: shapely.Point, path: list[np.ndarray]) -> int:
    """Winding number from angles."""
    total = 0.0
    for polygon in path:
        offset = polygon - np.array([point.x, point.y])
        angle = np.arctan2(offset[:, 1], offset[:, 0])
        turn = np.roll(angle, -1) - angle
        total += (turn - 2 * np.pi * np.round(turn / (2 * np.pi))).sum()
    return round(total / (2 * np.pi))


def faces(path: list[np.ndarray]) -> list[tuple[shapely.Polygon, int]]:
    """The regions that the outlines cut the plane into, in pixels, each with its winding number."""
    lines = shapely.union_all([shapely.LinearRing(polygon * SIZE) for polygon in path])
    return [
        (face, winding_at(face.representative_point(), [polygon * SIZE for polygon in path]))
        for face in shapely.ops.polygonize(lines)
    ]


FILLED = {"nonzero": lambda w: w != 0, "evenodd": lambda w: w % 2 == 1}
A, B = square(0.11, 0.13, 0.61, 0.66), square(0.37, 0.29, 0.89, 0.87)
PATHS = {
    "star": [pentagram()],
    "star of winding three": [heptagram()],
    "star backwards": [pentagram()[::-1]],
    "overlap of one direction": [A, B],
    "overlap of opposite directions": [A, B[::-1]],
    "shared edge": [square(0.1, 0.1, 0.47, 0.8), square(0.47, 0.1, 0.9, 0.8)],
    "slanted shared edge": [
        np.array([(0.1, 0.1), (0.55, 0.1), (0.4, 0.9), (0.1, 0.9)]),
        np.array([(0.55, 0.1), (0.9, 0.1), (0.9, 0.9), (0.4, 0.9)]),
    ],
    "hole": [square(0.1, 0.1, 0.9, 0.9), square(0.3, 0.3, 0.7, 0.7)[::-1]],
    "hole of one direction": [square(0.1, 0.1, 0.9, 0.9), square(0.3, 0.3, 0.7, 0.7)],
    "islands in holes": [
        square(0.05, 0.05, 0.95, 0.95), square(0.15, 0.15, 0.85, 0.85)[::-1],
        square(0.25, 0.25, 0.75, 0.75), square(0.35, 0.35, 0.65, 0.65)[::-1], square(0.45, 0.45, 0.55, 0.55),
    ],
    "figure of eight": [np.array([(0.1, 0.12), (0.9, 0.83), (0.9, 0.11), (0.1, 0.9)])],
}  # fmt: skip


@pytest.mark.parametrize("rule", FILLED)
@pytest.mark.parametrize("name", PATHS)
def test_interiors_and_single_boundaries_are_exact(name, rule):
    path = PATHS[name]
    regions = faces(path)
    filled = shapely.union_all([face for face, w in regions if FILLED[rule](w)])
    expected = exact_areas(filled, SIZE)
    result = np.asarray(draw(edges(path), SIZE, rule=rule))[0]
    by_winding: dict[int, list[shapely.Polygon]] = {0: [shapely.box(0, 0, SIZE, SIZE)]}
    for face, w in regions:
        by_winding.setdefault(w, []).append(face)
        by_winding[0] = [by_winding[0][0].difference(face), *by_winding[0][1:]]
    shares = {w: exact_areas(shapely.union_all(parts), SIZE) for w, parts in by_winding.items()}
    present = {w: share > 1e-9 for w, share in shares.items()}
    kinds = np.sum(list(present.values()), axis=0)
    lowest = np.min([np.where(present[w], w, 99) for w in present], axis=0)
    highest = np.max([np.where(present[w], w, -99) for w in present], axis=0)
    # One boundary: two neighbouring winding numbers in the pixel.
    simple = (kinds == 1) | ((kinds == 2) & (highest - lowest == 1))
    assert simple.mean() > 0.95 and (kinds[simple] == 2).sum() > 30
    np.testing.assert_allclose(result[simple], expected[simple], atol=2e-5)


def test_a_seam_of_one_direction_is_closed_and_the_maximum_of_a_union_is_not_a_sum():
    result = {
        rule: np.asarray(draw(edges(PATHS["shared edge"]), SIZE, rule=rule))[0, 12, 15]
        for rule in ("nonzero", "evenodd", "union")
    }
    # The seam lies at .47 * 32 = 15.04: the right square covers .96 of the pixel.
    assert result == pytest.approx({"nonzero": 1.0, "evenodd": 1.0, "union": 0.96}, abs=1e-5)
