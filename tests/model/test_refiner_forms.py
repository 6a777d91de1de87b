"""Forms of the head's layers that suit a CPU, against the plain ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from moonseg_jax.model.refiner_attention import Attention, attend_to_many
from moonseg_jax.model.refiner_cpu_forms import conv_in_blocks
from moonseg_jax.model.refiner_layers import Conv3x3, PixelNorm, gelu

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_gelu_is_the_exact_one():
    x = np.array([-6.0, -1.5, -0.1, 0.0, 0.7, 3.0, 9.0], np.float32)
    exact = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    np.testing.assert_allclose(gelu(x), exact, atol=2e-7)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("block", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_blocks_of_outputs_are_the_pixels_of_a_convolution(stride, block):
    x, kernel = normal(2, 8, 12, 3), normal(3, 3, 3, 5)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 8 // stride, 12 // stride, 5))
    for row in range(8 // stride):
        for column in range(12 // stride):
            window = padded[:, row * stride : row * stride + 3, column * stride : column * stride + 3]
            expected[:, row, column] = np.einsum("nyxc,yxck->nk", window, kernel)
    np.testing.assert_allclose(conv_in_blocks(x, kernel, stride, *block), expected, atol=1e-5)


@pytest.mark.parametrize(("side", "channels", "features", "stride"), [(8, 1, 4, 2), (6, 12, 12, 1), (7, 3, 4, 2)])
def test_convolutions_on_a_cpu_are_those_of_flax(side, channels, features, stride):
    x = normal(2, side, side, channels)
    params = {"kernel": normal(3, 3, channels, features), "bias": normal(features)}
    plain = nn.Conv(features, (3, 3), strides=stride, padding=1)
    for on_cpu in (False, True):
        ours = Conv3x3(features, stride=stride, on_cpu=on_cpu).apply({"params": params}, x)
        np.testing.assert_allclose(ours, plain.apply({"params": params}, x), atol=1e-5)


def test_pixel_norm_is_a_layer_norm():
    x, params = 3 + normal(2, 5, 4, 12), {"scale": normal(12), "bias": normal(12)}
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    for on_cpu in (False, True):
        ours = PixelNorm(on_cpu=on_cpu).apply({"params": params}, x)
        np.testing.assert_allclose(ours, expected * params["scale"] + params["bias"], atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "channels", "side"),
    [(Conv3x3(12), 12, 6), (Conv3x3(20), 3, 6), (Conv3x3(4, stride=2), 1, 8), (Conv3x3(4, stride=2), 3, 7),
     (PixelNorm(), 12, 5)],
)  # fmt: skip
def test_gradients_on_a_cpu_are_those_of_the_plain_form(layer, channels, side):
    x = normal(2, side, side, channels)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(normal(*leaf.shape)), shapes)
    answer = normal(*jax.eval_shape(layer.apply, {"params": params}, x).shape)

    def gradients(form):
        return jax.grad(lambda params, x: jnp.vdot(form.apply({"params": params}, x), answer), argnums=(0, 1))(
            params, x
        )

    ours, plain = jax.tree.leaves(gradients(layer.clone(on_cpu=True))), jax.tree.leaves(gradients(layer))
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_attending_to_many_is_attention_without_projecting_them():
    queries, items, attention = normal(2, 3, 12), normal(2, 50, 12), Attention(12, heads=4)
    shapes = jax.eval_shape(attention.init, jax.random.key(0), queries, items, items)["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(normal(*leaf.shape)), shapes)
    expected = attention.apply({"params": params}, queries, items, items)
    np.testing.assert_allclose(attend_to_many(params, 4, queries, items), expected, atol=2e-4)
