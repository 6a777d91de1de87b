import math
import types

import jax.numpy as jnp
import numpy as np

from moonseg_jax.learner.reference_kl import reference_kl


def test_the_estimate_counts_sampled_tokens_of_valid_prompts_only():
    # One image with two prompts, the second one padding; two samples of each, of 2 and 1 tokens.
    batch = types.SimpleNamespace(valid=jnp.array([[True, False]]))
    drawn = jnp.log(jnp.array([[0.5, 0.5, 1.0], [0.25, 1.0, 1.0], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]]))
    rollouts = types.SimpleNamespace(lengths=jnp.array([2, 1, 3, 3]), log_probs=drawn)
    reference = jnp.log(jnp.array([[0.25, 0.5, 0.3], [0.5, 0.2, 0.2], [0.9, 0.9, 0.9], [0.9, 0.9, 0.9]]))
    total, count = reference_kl(reference, batch, rollouts)
    # k3 of a ratio r is r - 1 - log r: at 1/2, 1 and 2.
    expected = (0.5 - 1 + math.log(2)) + 0.0 + (2 - 1 - math.log(2))
    np.testing.assert_allclose([total, count], [expected, 3.0], rtol=1e-6)


def test_what_lies_past_a_length_may_be_anything():
    batch = types.SimpleNamespace(valid=jnp.array([[True]]))
    rollouts = types.SimpleNamespace(lengths=jnp.array([1]), log_probs=jnp.array([[-1.0, 0.0]]))
    total, count = reference_kl(jnp.array([[-1.0, jnp.nan]]), batch, rollouts)
    assert (float(total), float(count)) == (0.0, 1.0)
