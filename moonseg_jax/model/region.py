"""Coordinate and size heads with Fourier features (spec §6)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from moonseg_jax.config import RegionConfig
from moonseg_jax.model.dense import dense
from moonseg_jax.model.text import EPSILON


def fourier(values: Float[Array, "... n"], frequencies: Float[Array, "n f"]) -> Float[Array, "... 2f"]:
    """cos(2 pi v F) beside sin(2 pi v F)."""
    angle = 2.0 * jnp.pi * values @ frequencies
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class Region(nn.Module):
    """Embeds coordinates and sizes, and decodes hidden rows into their bins."""

    config: RegionConfig
    width: int
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Fourier frequencies are parameters: the official ones are loaded, ours are drawn once and trained."""
        c = self.config
        self.coord_frequencies = self.param(
            "coord_frequencies", nn.initializers.normal(2.0), (1, c.coord_features // 2)
        )
        self.size_frequencies = self.param("size_frequencies", nn.initializers.normal(2.0), (2, c.size_features // 2))
        self.coord_encoder = dense(self.width, dtype=self.dtype)
        self.size_encoder = dense(self.width, dtype=self.dtype)
        if c.layer_norm:
            self.ln = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype)
        self.coord_decoder = dense(c.coord_bins, dtype=self.dtype)
        self.size_decoder = dense(2 * c.size_bins, dtype=self.dtype)

    def embed_coordinate(self, value: Float[Array, "..."]) -> Float[Array, "... D"]:
        """Embedding of a coordinate in [0, 1]."""
        return self.coord_encoder(fourier(value[..., None], self.coord_frequencies))

    def embed_size(self, value: Float[Array, "... 2"]) -> Float[Array, "... D"]:
        """Embedding of (width, height) in units of the image."""
        return self.size_encoder(fourier(value, self.size_frequencies))

    def __call__(self, hidden: Float[Array, "... D"]) -> tuple[Float[Array, "... c"], Float[Array, "... 2 s"]]:
        """Float32 logits of the coordinate bins and of the (width, height) bins, from rows before the final norm."""
        normed = self.ln(hidden) if self.config.layer_norm else hidden
        size = self.size_decoder(normed)
        size = size.reshape(*size.shape[:-1], 2, self.config.size_bins)
        return self.coord_decoder(normed).astype(jnp.float32), size.astype(jnp.float32)
