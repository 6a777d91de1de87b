"""Layers of the refinement head: norms, exact GELU, bilinear resizing, 3x3 convolutions, MLPs.

Letters: N images, H and W their sides, C channels. Some layers have two forms of one formula: the plain one, for
accelerators, and one that XLA runs faster on a CPU (`refiner_cpu_forms`).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moonseg_jax.model.refiner_cpu_forms import convolve, convolve_plainly, normalise_pixels

EPSILON = 1e-5


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
        if self.on_cpu:
            return normalise_pixels(x, scale, bias, EPSILON)
        mean = jnp.mean(x, axis=-1, keepdims=True)
        spread = jax.lax.rsqrt(jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True) + EPSILON)
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
        if self.on_cpu:
            return convolve(x, kernel, self.stride) + bias
        return convolve_plainly(x, kernel, self.stride) + bias


class Mlp(nn.Module):
    """Dense layers with exact GELU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inner"]) -> Float[Array, "*batch outer"]:
        """Applies the layers in turn; none after the last."""
        for index, width in enumerate(self.widths):
            x = nn.Dense(width, name=f"dense_{index}")(gelu(x) if index else x)
        return x
