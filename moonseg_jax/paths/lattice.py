"""The lattice of path numbers that a box spans over an image, on the host."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from moonseg_jax.config import PATH_UNITS, RegionConfig
from moonseg_jax.paths.boxes import bin_from_coordinate, bin_from_size, coordinate_from_bin, size_from_bin


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lattice:
    """Path numbers relative to a quantised box."""

    box_bins: np.ndarray
    """int32[4]: bins of cx, cy, w, h."""
    box: np.ndarray
    """float32[4]: what the bins stand for, in units of the image."""
    integers: np.ndarray
    """The numbers that can be written, ascending."""
    origin: np.ndarray
    """[2]: upper left corner of the box (x, y), in pixels."""
    extent: np.ndarray
    """[2]: width and height of the box, in pixels."""

    @classmethod
    def around(
        cls,
        low: Float[np.ndarray, " 2"],
        high: Float[np.ndarray, " 2"],
        *,
        size: tuple[int, int],
        region: RegionConfig,
        integers: Int[np.ndarray, " n"],
    ) -> Lattice:
        """The smallest quantised box that holds a rectangle, around the nearest quantised centre.

        The size is rounded up, because path numbers end at the box: a nearest size would cut off up to half
        a bin.

        Args:
          low: corner (x, y) of the rectangle, in pixels.
          high: the opposite corner.
          size: width and height of the image in pixels.
          region: the scales of the bins.
          integers: the path numbers that can be written.
        """
        low, high = low / np.array(size), high / np.array(size)
        centre_bins = bin_from_coordinate((low + high) / 2, region)
        centre = coordinate_from_bin(centre_bins, region)
        reach = 2 * np.maximum(high - centre, centre - low)
        size_bins = bin_from_size(reach, region)
        too_small = size_from_bin(size_bins, region) < reach - 1e-6
        size_bins = np.minimum(size_bins + too_small, region.size_bins - 1).astype(np.int32)
        box = np.concatenate([centre, size_from_bin(size_bins, region)])
        return cls(
            box_bins=np.concatenate([centre_bins, size_bins]),
            box=box,
            integers=integers,
            origin=(box[:2] - box[2:] / 2) * np.array(size),
            extent=box[2:] * np.array(size),
        )

    def numbers(self, points: Float[np.ndarray, "vertices 2"]) -> Int[np.ndarray, "vertices 2"]:
        """Nearest path numbers of points in pixels; points outside the box go to its border."""
        between = (self.integers[1:] + self.integers[:-1]) / 2
        nearest = np.searchsorted(between, (points - self.origin) / self.extent * PATH_UNITS)
        return self.integers[nearest].astype(np.int64)

    def pixels(self, numbers: Int[np.ndarray, "vertices 2"]) -> Float[np.ndarray, "vertices 2"]:
        """Points in pixels of path numbers."""
        return self.origin + numbers / PATH_UNITS * self.extent

    def enclosing_rectangle(self, points: Float[np.ndarray, "vertices 2"]) -> Int[np.ndarray, "4 2"]:
        """Bounding rectangle of points in path numbers, clockwise, at least one step wide and high."""
        low = np.searchsorted(self.integers, self.numbers(points.min(axis=0)))
        high = np.searchsorted(self.integers, self.numbers(points.max(axis=0)))
        low = np.minimum(low, len(self.integers) - 2)
        (x0, y0), (x1, y1) = low, np.maximum(high, low + 1)
        return self.integers[np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])].astype(np.int64)
