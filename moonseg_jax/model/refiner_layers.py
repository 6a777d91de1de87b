"""Layers of the refinement head: norms, exact GELU, bilinear resizing, 3x3 convolutions, MLPs.

Letters: N images, H and W their sides, C channels. Some layers have two forms of one formula: the plain one, for
training and accelerators, and one that XLA runs faster on a CPU, forward only.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

EPSILON = 1e-5
NARROW = 16
"""Output channels up to which a 3x3 convolution is a product too narrow for a CPU's vector units."""


def layer_norm(name: str) -> nn.LayerNorm:
    """LayerNorm over the last axis with the official epsilon; at image positions this is LN2d."""
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name=name)


def group_norm(groups: int, name: str) -> nn.GroupNorm:
    """GroupNorm over channels-last images with the official epsilon."""
    return nn.GroupNorm(groups, epsilon=EPSILON, use_fast_variance=False, name=name)


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Exact GELU; the head never uses the tanh form.

    Written with erf, as PyTorch does: `jax.nn.gelu` uses erfc, which takes XLA's CPU back end three times as long.
    """
    return x * (0.5 + 0.5 * jax.lax.erf(x * np.float32(0.5**0.5)))


def resize_bilinear(x: Float[Array, "N H W C"], height: int, width: int) -> Float[Array, "N height width C"]:
    """Bilinear resize with half-pixel centres, corners not aligned, no antialiasing."""
    shape = (x.shape[0], height, width, x.shape[3])
    return jax.image.resize(x, shape, jax.image.ResizeMethod.LINEAR, antialias=False)


class PixelNorm(nn.Module):
    """LayerNorm over the channels of images."""

    on_cpu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H W C"]:
        """Normalises every pixel."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        mean = jnp.mean(x, axis=-1, keepdims=True)
        spread = jax.lax.rsqrt(jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True) + EPSILON)
        if self.on_cpu:
            # Else XLA works out both sums again for every channel.
            mean, spread = jax.lax.optimization_barrier((mean, spread))
        return (x - mean) * (spread * scale) + bias


class Conv3x3(nn.Module):
    """3x3 convolution with a margin of one pixel."""

    features: int
    stride: int = 1
    on_cpu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N h w features"]:
        """Convolves; h and w are H and W over the stride, rounded up."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        rows = 2 if self.on_cpu and self.features <= NARROW else 1
        # A single channel makes the product short as well as narrow.
        columns = 2 if rows == 2 and x.shape[-1] == 1 else 1
        if (x.shape[1] % (rows * self.stride), x.shape[2] % (columns * self.stride)) != (0, 0):
            rows = columns = 1
        return conv_in_blocks(x, kernel, self.stride, rows, columns) + bias


def conv_in_blocks(
    x: Float[Array, "N H W C"], kernel: Float[Array, "3 3 C K"], stride: int, rows: int, columns: int
) -> Float[Array, "N h w K"]:
    """3x3 convolution, margin 1, that computes a block of output pixels from one window: a wider product.

    Args:
      x: images; unless blocks are single pixels, their sides are multiples of stride times block.
      kernel: of the convolution.
      stride: between output pixels.
      rows: of a block.
      columns: of a block.
    """
    reach = (stride * (rows - 1), stride * (columns - 1))
    placed = [
        jnp.pad(kernel, ((dy, reach[0] - dy), (dx, reach[1] - dx), (0, 0), (0, 0)))
        for dy in range(0, reach[0] + 1, stride)
        for dx in range(0, reach[1] + 1, stride)
    ]
    blocks = jax.lax.conv_general_dilated(
        x, jnp.concatenate(placed, axis=-1), (stride * rows, stride * columns), ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    count, height, width, _ = blocks.shape
    blocks = blocks.reshape(count, height, width, rows, columns, -1).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(count, height * rows, width * columns, -1)


class Mlp(nn.Module):
    """Dense layers with exact GELU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inner"]) -> Float[Array, "*batch outer"]:
        """Applies the layers in turn; none after the last."""
        for index, width in enumerate(self.widths):
            x = nn.Dense(width, name=f"dense_{index}")(gelu(x) if index else x)
        return x
