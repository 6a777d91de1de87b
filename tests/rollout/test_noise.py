"""Draws of tokens and bins follow their distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.model.moondream import HeadLogits
from moonseg_jax.rollout.noise import draw


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_masked_softmax(temperature):
    count = 20_000
    odds = np.array([1.0, 2.0, 4.0, 3.0])
    logits = HeadLogits(
        token=jnp.tile(np.log(odds), (count, 1)),
        coord=jnp.tile(np.log(odds[:2]), (count, 1)),
        size=jnp.tile(np.log([odds[:2], odds[2:]]), (count, 1, 1)),
    )
    mask = jnp.tile(jnp.array([True, True, False, True]), (count, 1))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(count))
    steps = jnp.full(count, 3)
    token, coord, size = jax.jit(draw, static_argnums=4)(logits, mask, keys, steps, temperature)

    def close(drawn, odds):
        shares = odds ** (1 / temperature)
        found = np.bincount(drawn, minlength=len(odds)) / count
        np.testing.assert_allclose(found, shares / shares.sum(), atol=0.012)

    close(token, odds * [1, 1, 0, 1])
    close(coord, odds[:2])
    close(size[:, 0], odds[:2])
    close(size[:, 1], odds[2:])
    assert abs(np.corrcoef(size[:, 0], size[:, 1])[0, 1]) < 0.03
