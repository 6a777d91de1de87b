"""Boxes: coordinate and size bins, and the corners of a box.

Every function takes NumPy or JAX arrays and answers in kind; all values are in units of the image.
Source: the region heads and the box arithmetic of Moondream 3 (specification, sections 6 and 8).
"""

from __future__ import annotations

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moonseg_jax.config import RegionConfig

SIZE_OCTAVES = 10
"""Sizes run from 2^-10 to 1 on a logarithmic scale."""


def _numpy_for(*values: object) -> ModuleType:
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def _coordinate_top(region: RegionConfig) -> int:
    return region.coord_bins - 1 if region.coord_top == "bins-1" else region.coord_bins


def coordinate_from_bin(bin: Int[Array, "*shape"], region: RegionConfig) -> Float[Array, "*shape"]:
    """Coordinate of a bin: `bin / (bins - 1)`, or `bin / bins` where `coord_top` says so."""
    return _numpy_for(bin).asarray(bin, dtype=np.float32) / np.float32(_coordinate_top(region))


def bin_from_coordinate(coordinate: Float[Array, "*shape"], region: RegionConfig) -> Int[Array, "*shape"]:
    """Bin whose coordinate is nearest; coordinates outside [0, 1] go to the first or last bin."""
    xp = _numpy_for(coordinate)
    nearest = xp.round(xp.asarray(coordinate) * _coordinate_top(region))
    return xp.clip(nearest, 0, region.coord_bins - 1).astype(np.int32)


def size_from_bin(bin: Int[Array, "*shape"], region: RegionConfig) -> Float[Array, "*shape"]:
    """Width or height of a size bin: `2^(10 bin / (bins - 1) - 10)`, from 1/1024 to 1."""
    xp = _numpy_for(bin)
    octaves = xp.asarray(bin, dtype=np.float32) * np.float32(SIZE_OCTAVES / (region.size_bins - 1))
    return xp.exp2(octaves - np.float32(SIZE_OCTAVES))


def bin_from_size(size: Float[Array, "*shape"], region: RegionConfig) -> Int[Array, "*shape"]:
    """Bin whose size is nearest on the logarithmic scale; sizes below 1/1024 go to bin 0."""
    xp = _numpy_for(size)
    octaves = xp.log2(xp.clip(xp.asarray(size), 2.0**-SIZE_OCTAVES, 1.0)) + SIZE_OCTAVES
    return xp.round(octaves * ((region.size_bins - 1) / SIZE_OCTAVES)).astype(np.int32)


def corners_from_box(
    box: Float[Array, "*shape 4"],
) -> tuple[
    Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]
]:  # fmt: skip
    """Corners of boxes `cx, cy, w, h`, clipped to the image as the public answer's `bbox` is.

    The four values are clipped to [0, 1] first, then the corners. For placing a path use the unclipped
    corner `cx - w/2` instead.

    Returns:
      x0, y0, x1, y1.
    """
    xp = _numpy_for(box)
    box = xp.clip(box, 0.0, 1.0)
    cx, cy, w, h = (box[..., axis] for axis in range(4))
    return (
        xp.maximum(cx - w / 2, 0.0),
        xp.maximum(cy - h / 2, 0.0),
        xp.minimum(cx + w / 2, 1.0),
        xp.minimum(cy + h / 2, 1.0),
    )
