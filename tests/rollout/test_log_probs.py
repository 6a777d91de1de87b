"""Log-probabilities of tokens with their bins, against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import micro

from moonseg_jax.model.moondream import HeadLogits
from moonseg_jax.rollout.log_probs import masked_log_softmax, token_statistics

PATHS = micro().paths
COORD, SIZE, TEXT = PATHS.coord_token, PATHS.size_token, 2
ODDS = np.log([1.0, 2.0, 4.0, 8.0], dtype=np.float32)

statistics = jax.jit(token_statistics, static_argnums=5)


def entropy(*odds: float) -> float:
    share = np.array(odds) / sum(odds)
    return float(-(share * np.log(share)).sum())


@pytest.mark.parametrize(
    ("temperature", "shares"), [(1.0, [1 / 11, 2 / 11, 0, 8 / 11]), (0.5, [1 / 69, 4 / 69, 0, 64 / 69])]
)
def test_masked_softmax_shares_the_mass_among_what_is_allowed(temperature, shares):
    mask = jnp.array([True, True, False, True])
    log_probs = masked_log_softmax(ODDS, mask, temperature)
    np.testing.assert_allclose(np.exp(log_probs), shares, atol=1e-6)
    assert log_probs[2] == -np.inf


def three_rows() -> tuple[HeadLogits, np.ndarray]:
    """A coordinate, a size and a text token; odds of 8 tokens 1 : … : 1, of two coordinate bins 1 : 3, of two
    width bins 1 : 1 and of two height bins 1 : 4. Half of the tokens are allowed."""
    logits = HeadLogits(
        token=jnp.zeros((3, 8)),
        coord=jnp.tile(jnp.log(jnp.array([1.0, 3.0])), (3, 1)),
        size=jnp.tile(jnp.log(jnp.array([[1.0, 1.0], [1.0, 4.0]])), (3, 1, 1)),
    )
    mask = np.isin(np.arange(8), (TEXT, 3, COORD, SIZE))
    return logits, np.tile(mask, (3, 1))


def test_bins_count_at_coordinates_and_sizes_only():
    logits, mask = three_rows()
    tokens, bins = jnp.array([COORD, SIZE, TEXT]), jnp.array([[1, 0], [0, 1], [1, 1]])
    found = statistics(logits, mask, tokens, tokens, bins, PATHS)
    np.testing.assert_allclose(np.exp(found.log_probs), [1 / 4 * 3 / 4, 1 / 4 * 1 / 2 * 4 / 5, 1 / 4], rtol=1e-6)
    of_token, of_size = entropy(1, 1, 1, 1), entropy(1, 1) + entropy(1, 4)
    expected = [of_token + entropy(1, 3), of_token + of_size, of_token]
    np.testing.assert_allclose(found.entropy, expected, rtol=1e-6)


def test_temperature_sharpens_tokens_and_bins_alike():
    logits, mask = three_rows()
    logits = logits._replace(token=logits.token.at[:, TEXT].set(np.log(2.0)))
    tokens, bins = jnp.array([COORD, SIZE, TEXT]), jnp.array([[1, 0], [0, 1], [0, 0]])
    found = statistics(logits, mask, tokens, tokens, bins, PATHS, temperature=0.5)
    expected = [1 / 7 * 9 / 10, 1 / 7 * 1 / 2 * 16 / 17, 4 / 7]
    np.testing.assert_allclose(np.exp(found.log_probs), expected, rtol=1e-6)


def test_forbidden_entries_get_no_gradient_and_spoil_none():
    logits, mask = three_rows()
    mask[2] = np.arange(8) == TEXT
    tokens, bins = jnp.array([COORD, SIZE, 7]), jnp.zeros((3, 2), int)
    learned = jnp.array([True, True, False])

    def loss(logits):
        found = statistics(logits, mask, tokens, tokens, bins, PATHS)
        return jnp.sum(jnp.where(learned, found.log_probs, 0.0)) + jnp.sum(found.entropy)

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    np.testing.assert_array_equal(gradient.token[~mask], 0.0)
    # d log p(c) / d logits = onehot(c) - p; the entropy of equal odds is at its maximum, so it adds nothing.
    expected = np.where(np.arange(8) == COORD, 0.75, np.where(mask[0], -0.25, 0.0))
    np.testing.assert_allclose(gradient.token[0], expected, atol=1e-6)
