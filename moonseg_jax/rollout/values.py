"""Values fed back at coordinate and size tokens."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moonseg_jax.config import PathConfig, RegionConfig
from moonseg_jax.paths.boxes import coordinate_from_bin, size_from_bin


def values_from_bins(
    token_ids: Int[Array, "..."], bins: Int[Array, "... 2"], region: RegionConfig, paths: PathConfig
) -> Float[Array, "... 2"]:
    """A coordinate in the first entry, (width, height) at sizes, zero at text; units of the image."""
    coord = coordinate_from_bin(bins, region) * jnp.array([1.0, 0.0])
    size = size_from_bin(bins, region)
    is_coord = (token_ids == paths.coord_token)[..., None]
    is_size = (token_ids == paths.size_token)[..., None]
    return jnp.where(is_coord, coord, jnp.where(is_size, size, 0.0))
