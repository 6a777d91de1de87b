"""Masks are exact: compared with sampling the polygons point by point."""

import math

import numpy as np
import pytest

from data_pipelines.lexicon import KINDS
from data_pipelines.shapes import raster
from data_pipelines.shapes.draws import Draws
from data_pipelines.shapes.kinds import outline, signed_area
from data_pipelines.shapes.layout import Role, cast, look, place
from data_pipelines.shapes.levels import LEVELS

SAMPLES = 10
"""Sample points along one side of a pixel."""


def inside(contours, size):
    """Even-odd test of sample points, bool[size * SAMPLES, size * SAMPLES]."""
    at = (np.arange(size * SAMPLES) + 0.5) / SAMPLES
    x, y = at[None, :], at[:, None]
    odd = np.zeros((len(at), len(at)), bool)
    for contour in contours:
        for (x0, y0), (x1, y1) in zip(contour, np.roll(contour, -1, axis=0)):
            if y0 == y1:
                continue
            rows = ((y0 <= y) != (y1 <= y))[:, 0]
            crossing = x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0)
            odd[rows] ^= x > crossing
    return odd


def pixels(samples):
    size = len(samples) // SAMPLES
    return samples.reshape(size, SAMPLES, size, SAMPLES).mean(axis=(1, 3))


@pytest.mark.parametrize("size", [96, 64])
def test_visible_masks_agree_with_point_sampling(size):
    doubts, ious = [], []
    for number in range(6):
        draws = Draws(21, number)
        placed, labels = place(cast(LEVELS[2], "train", draws), LEVELS[2], size, draws)
        seen = look(placed, labels) or []
        hidden = np.zeros((size * SAMPLES,) * 2, bool)
        for item, visible in reversed(list(zip(placed, seen))):
            whole = inside(item.contours, size)
            share = pixels(whole & ~hidden)
            expected = share >= 0.5
            hidden |= whole
            doubts += list(np.abs(share - 0.5)[expected != visible.mask])
            ious.append((expected & visible.mask).sum() / (expected | visible.mask).sum())
    assert len(ious) >= 12
    assert np.mean(ious) > 0.97
    # Only pixels that are about half covered may fall on the other side.
    assert np.mean(doubts) < 0.08 and max(doubts) < 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_painted_area_is_that_of_the_polygon(kind):
    draws, errors = Draws(22, KINDS.index(kind)), []
    for _ in range(40):
        turn, radius = draws.between(0, 2 * math.pi), draws.between(12, 26)
        rotation = radius * np.array([(math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))])
        contours = [part @ rotation + (48 + draws.unit(), 48 + draws.unit()) for part in outline(kind, draws)]
        labels = np.zeros((384, 384), np.uint8)
        raster.paint(labels, contours, 7)
        errors.append((labels == 7).sum() / 16 / sum(map(signed_area, contours)) - 1)
    assert abs(np.mean(errors)) < 0.005 and np.std(errors) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_outlines_fill_the_unit_circle_with_holes_wound_the_other_way(kind):
    contours = outline(kind, Draws(23))
    assert max(np.hypot(*contour.T).max() for contour in contours) == pytest.approx(1, abs=0.01)
    signs = [signed_area(contour) > 0 for contour in contours]
    assert signs == {"ring": [True, False], "frame": [True, False]}.get(kind, [True] * len(contours))
    assert len(contours) > 1 or kind != "dots"


def test_coverage_counts_the_cells_of_a_pixel():
    labels = np.zeros((8, 8), np.uint8)
    labels[0:4, 0:4] = 3
    labels[1, 5:7] = 3
    assert raster.coverage(labels, 3).tolist() == [[16, 2], [0, 0]]


def test_every_object_stays_visible_and_large_ones_are_larger():
    level, radii = LEVELS[2], {"small": [], "large": []}
    for number in range(60):
        draws = Draws(24, number)
        placed, labels = place(cast(level, "train", draws), level, 96, draws)
        for position, item in enumerate(placed):
            assert (labels == position + 1).sum() >= level.visible_share * item.coverage.sum()
            radii[item.role.size].append(item.radius)
    assert max(radii["small"]) <= 16 < 21 <= min(radii["large"]) and max(radii["large"]) <= 28


def test_an_object_that_fits_nowhere_is_left_out():
    role = Role(colour="red", kind="disc", size="large")
    placed, labels = place([role] * 30, LEVELS[1], 96, Draws(25))
    assert 1 <= len(placed) < 12
    assert set(np.unique(labels)) == set(range(len(placed) + 1))
