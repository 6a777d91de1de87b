"""Bins and boxes against the numbers of the specification."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.config import tiny
from moonseg_jax.paths.boxes import (
    bin_from_coordinate,
    bin_from_size,
    coordinate_from_bin,
    corners_from_box,
    size_from_bin,
)

REGION = dataclasses.replace(tiny().region, coord_bins=1024, size_bins=1024)


def test_bins_have_the_published_values():
    assert coordinate_from_bin(np.array([0, 341, 1023]), REGION) == pytest.approx([0, 1 / 3, 1])
    hugging_face = dataclasses.replace(REGION, coord_top="bins")
    assert coordinate_from_bin(np.array([512, 1023]), hugging_face) == pytest.approx([0.5, 1023 / 1024])
    assert size_from_bin(np.array([0, 1023]), REGION) == pytest.approx([1 / 1024, 1])
    assert size_from_bin(np.array([500]), REGION) == pytest.approx([2 ** (10 * 500 / 1023 - 10)])


@pytest.mark.parametrize("numpy_for", [np, jnp])
def test_every_bin_survives_the_round_trip(numpy_for):
    bins = numpy_for.arange(1024)
    assert (bin_from_coordinate(coordinate_from_bin(bins, REGION), REGION) == bins).all()
    assert (bin_from_size(size_from_bin(bins, REGION), REGION) == bins).all()
    assert isinstance(size_from_bin(bins, REGION), type(bins))


def test_values_outside_go_to_the_ends():
    assert bin_from_coordinate(np.array([-0.2, 1.7]), REGION).tolist() == [0, 1023]
    assert bin_from_size(np.array([0.0, 1e-9, 3.0]), REGION).tolist() == [0, 0, 1023]


def test_coordinates_go_to_the_nearest_bin():
    assert bin_from_coordinate(np.array([10.49, 10.51]) / 1023, REGION).tolist() == [10, 11]


def test_corners_clip_values_first_and_corners_second():
    """The cases of the official box builder: (0.1, 0.9, 0.4, 0.4) and (1.2, -0.1, 2.0, 0.1)."""
    boxes = np.array([[0.1, 0.9, 0.4, 0.4], [1.2, -0.1, 2.0, 0.1]])
    corners = np.stack(corners_from_box(boxes), axis=-1)
    np.testing.assert_allclose(corners, [[0.0, 0.7, 0.3, 1.0], [0.5, 0.0, 1.0, 0.05]], atol=1e-12)
