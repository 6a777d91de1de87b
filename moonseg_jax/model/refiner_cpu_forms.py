"""Forms of the refinement head's layers that XLA runs faster on a CPU, with derivatives of their own.

Left to itself XLA's CPU back end fuses a norm's sums into everything that uses them and works them out again for every
channel, forward and backward; and it takes convolutions with few channels as products too narrow for vector units.
Letters: N images, H and W their sides, C channels in, K channels out.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NARROW = 16
"""Output channels up to which a 3x3 convolution is a product too narrow for a CPU's vector units."""
Residuals = tuple[Array, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_pixels(
    x: Float[Array, "N H W C"], scale: Float[Array, " C"], bias: Float[Array, " C"], epsilon: float
) -> Float[Array, "N H W C"]:
    """LayerNorm over the channels of every pixel."""
    return _normalise(x, scale, bias, epsilon)[0]


def _normalise(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Residuals]:
    mean = jax.lax.optimization_barrier(jnp.mean(x, axis=-1, keepdims=True))
    spread = jax.lax.rsqrt(jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True) + epsilon)
    spread = jax.lax.optimization_barrier(spread)
    return (x - mean) * (spread * scale) + bias, (x, mean, spread, scale)


def _normalise_backward(epsilon: float, residuals: Residuals, gradient: Array) -> tuple[Array, Array, Array]:
    """With n = (x - mean) * spread and g the gradient of n: spread * (g - mean(g) - n * mean(g * n))."""
    x, mean, spread, scale = residuals
    gradient = jax.lax.optimization_barrier(gradient)
    normal, scaled = (x - mean) * spread, gradient * scale
    sums = (jnp.mean(scaled, axis=-1, keepdims=True), jnp.mean(scaled * normal, axis=-1, keepdims=True))
    shift, along = jax.lax.optimization_barrier(sums)
    return (
        jax.lax.optimization_barrier(spread * (scaled - shift - normal * along)),
        jnp.sum(gradient * normal, axis=(0, 1, 2)),
        jnp.sum(gradient, axis=(0, 1, 2)),
    )


normalise_pixels.defvjp(_normalise, _normalise_backward)


def convolve_plainly(
    x: Float[Array, "N H W C"], kernel: Float[Array, "3 3 C K"], stride: int
) -> Float[Array, "N h w K"]:
    """3x3 convolution, margin 1; h and w are H and W over the stride, rounded up."""
    return conv_in_blocks(x, kernel, stride, 1, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Float[Array, "N H W C"], kernel: Float[Array, "3 3 C K"], stride: int) -> Float[Array, "N h w K"]:
    """What `convolve_plainly` gives, in blocks of output pixels where few channels come out."""
    channels, features = kernel.shape[2:]
    rows = 2 if features <= NARROW else 1
    # A single channel makes the product short as well as narrow.
    columns = 2 if rows == 2 and channels == 1 else 1
    if (x.shape[1] % (rows * stride), x.shape[2] % (columns * stride)) != (0, 0):
        rows = columns = 1
    return conv_in_blocks(x, kernel, stride, rows, columns)


def _convolve_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, Residuals]:
    return convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(stride: int, residuals: Residuals, gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    gradient = jax.lax.optimization_barrier(gradient)
    of_x, of_kernel = jax.vjp(functools.partial(convolve_plainly, stride=stride), x, kernel)[1](gradient)
    if stride == 1:
        # The same sum as a convolution of its own, which may then run in blocks.
        of_x = convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3), 1)
    # One by one: what nobody asks for is not worked out.
    return jax.lax.optimization_barrier(of_x), jax.lax.optimization_barrier(of_kernel)


convolve.defvjp(_convolve_forward, _convolve_backward)


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
