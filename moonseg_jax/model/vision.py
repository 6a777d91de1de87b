"""The vision encoder: crops to patch features, and features of several crops to image embeddings (spec §4)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, UInt8

from moonseg_jax.config import VisionConfig
from moonseg_jax.model.dense import BACK, WHOLE, dense
from moonseg_jax.model.stacks import Remat, rematerialised, unrolled
from moonseg_jax.partition import split_as, split_heads, split_rows

EPSILON = 1e-5


def patchify(crops: UInt8[Array, "B S S 3"], patch: int) -> Float[Array, "B g*g 3*patch*patch"]:
    """Normalised patch vectors, (x / 255 - 0.5) / 0.5, each in the order channel, row, column."""
    batch, side, _, channels = crops.shape
    grid = side // patch
    pixels = (crops.astype(jnp.float32) / 255.0 - 0.5) / 0.5
    pixels = pixels.reshape(batch, grid, patch, grid, patch, channels)
    return pixels.transpose(0, 1, 3, 5, 2, 4).reshape(batch, grid * grid, channels * patch * patch)


class VisionBlock(nn.Module):
    """Pre-norm transformer block with full attention; a scan body that also keeps the early features."""

    config: VisionConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, carry, layer):  # type: ignore[no-untyped-def]
        """Carry is (features, early features); the latter are taken after block `early_layer`."""
        x_BPW, early_BPW = carry
        c = self.config
        batch, patches, _ = x_BPW.shape
        x_BPW = split_rows(x_BPW)
        normed = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="ln1")(x_BPW)
        qkv = dense(3 * c.width, dtype=self.dtype, name="qkv")(normed)
        query, key, value = (
            split_heads(part.reshape(batch, patches, c.heads, -1), 2) for part in jnp.split(qkv, 3, -1)
        )
        scores = jnp.einsum("BQHd,BSHd->BHQS", query, key, preferred_element_type=jnp.float32)
        weights = nn.softmax(scores * query.shape[-1] ** -0.5).astype(self.dtype)
        mixed = jnp.einsum("BHQS,BSHd->BQHd", weights, value).reshape(batch, patches, c.width)
        x_BPW = x_BPW + dense(c.width, dtype=self.dtype, name="proj", splits=BACK)(mixed)
        normed = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="ln2")(x_BPW)
        hidden = nn.gelu(dense(c.mlp_width, dtype=self.dtype, name="fc1")(normed), approximate=True)
        x_BPW = x_BPW + dense(c.width, dtype=self.dtype, name="fc2", splits=BACK)(hidden)
        return (x_BPW, jnp.where(layer == c.early_layer, x_BPW, early_BPW)), None


class VisionEncoder(nn.Module):
    """Patch embedding, stacked blocks, final LayerNorm; and the projection of stitched features."""

    config: VisionConfig
    text_width: int
    dtype: jnp.dtype = jnp.float32
    remat: Remat = "none"

    def setup(self) -> None:
        """Names follow the official modules."""
        c = self.config
        self.patch_embedding = dense(c.width, dtype=self.dtype)
        self.position = self.param("position", nn.initializers.normal(0.5), (c.grid**2, c.width))
        self.blocks = nn.scan(
            rematerialised(VisionBlock, self.remat), variable_axes={"params": 0}, split_rngs={"params": True},
            length=c.layers, in_axes=0, unroll=unrolled(c.layers),
        )(c, dtype=self.dtype)  # fmt: skip
        self.post_ln = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype)
        self.projection_fc1 = dense(c.projection_width, dtype=self.dtype)
        self.projection_fc2 = dense(self.text_width, dtype=self.dtype, splits=BACK)

    def features(self, crops: UInt8[Array, "B S S 3"]) -> tuple[Float[Array, "B g*g W"], Float[Array, "B g*g W"]]:
        """Final features (after the last LayerNorm) and early features (after block `early_layer`, no norm)."""
        patches = patchify(crops, self.config.patch).astype(self.dtype)
        x_BPW = self.patch_embedding(patches) + split_as(self.position.astype(self.dtype), WHOLE)
        (x_BPW, early_BPW), _ = self.blocks((x_BPW, jnp.zeros_like(x_BPW)), jnp.arange(self.config.layers))
        return self.post_ln(x_BPW), early_BPW

    def pool(
        self,
        features: Float[Array, "I C g*g W"],
        stitch_rows: Float[Array, "I C g g"],
        stitch_cols: Float[Array, "I C g g"],
    ) -> Float[Array, "I g*g W"]:
        """Features of the tiles, stitched to one grid and averaged to the size of a crop's."""
        images, crops, patches, width = features.shape
        grid = self.config.grid
        tiles = features.reshape(images, crops, grid, grid, width)
        weights = (stitch_rows.astype(self.dtype), stitch_cols.astype(self.dtype))
        pooled = jnp.einsum("ICka,ICabW->ICkbW", weights[0], tiles)
        pooled = jnp.einsum("IClb,ICkbW->IklW", weights[1], pooled)
        return pooled.reshape(images, patches, width)

    def project(
        self,
        features: Float[Array, "I C g*g W"],
        stitch_rows: Float[Array, "I C g g"],
        stitch_cols: Float[Array, "I C g g"],
    ) -> Float[Array, "I g*g D"]:
        """Image embeddings: the global crop's features beside the stitched and pooled tiles', through an MLP."""
        pooled = self.pool(features, stitch_rows, stitch_cols)
        both = jnp.concatenate([features[:, 0], pooled], axis=-1)
        return self.projection_fc2(nn.gelu(self.projection_fc1(both), approximate=True))

    def __call__(
        self,
        crops: UInt8[Array, "I C S S 3"],
        stitch_rows: Float[Array, "I C g g"],
        stitch_cols: Float[Array, "I C g g"],
    ) -> Float[Array, "I g*g D"]:
        """Image embeddings from packed crops and their stitching weights."""
        images, count = crops.shape[:2]
        final, _ = self.features(crops.reshape(images * count, *crops.shape[2:]))
        return self.project(final.reshape(images, count, *final.shape[1:]), stitch_rows, stitch_cols)
