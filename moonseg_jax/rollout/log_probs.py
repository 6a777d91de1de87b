"""Log-probabilities of completion tokens: the one arithmetic of sampling and learning (contract 1).

A coordinate or size token carries bins besides its id; its log-probability is the sum of both.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import PathConfig
from moonseg_jax.model.moondream import HeadLogits


class TokenStatistics(NamedTuple):
    """Of one distribution per token."""

    log_probs: Float[Array, "..."]
    entropy: Float[Array, "..."]


def masked_log_softmax(
    logits: Float[Array, "... V"], mask: Bool[Array, "... V"], temperature: float
) -> Float[Array, "... V"]:
    """log softmax(mask(logits) / T); -inf where the mask forbids."""
    return nn.log_softmax(jnp.where(mask, logits / temperature, -jnp.inf))


def _entropy(log_probs: Float[Array, "... n"]) -> Float[Array, "..."]:
    # Forbidden entries are replaced before the product: 0 * -inf would poison the gradient.
    finite = jnp.where(log_probs > -jnp.inf, log_probs, 0.0)
    return -jnp.sum(jnp.where(log_probs > -jnp.inf, jnp.exp(finite) * finite, 0.0), axis=-1)


def token_statistics(
    logits: HeadLogits,
    mask: Bool[Array, "... A"],
    token_ids: Int[Array, "..."],
    chosen: Int[Array, "..."],
    bins: Int[Array, "... 2"],
    paths: PathConfig,
    temperature: float = 1.0,
) -> TokenStatistics:
    """Log-probability of the given tokens, bins included, and the entropy of what they were drawn from.

    The entropy of the bins is counted where the token is a coordinate or a size.

    Args:
      logits: of the rows that predict the tokens; token logits of A choices, or of the whole vocabulary.
      mask: what the grammar allows there.
      token_ids: tokens drawn.
      chosen: their places among the choices; the tokens themselves where logits are of the whole vocabulary.
      bins: coordinate bin in the first entry; (width, height) bins.
      paths: names the coordinate and size tokens.
      temperature: T > 0.
    """
    token = masked_log_softmax(logits.token, mask, temperature)
    coord = nn.log_softmax(logits.coord / temperature)
    size = nn.log_softmax(logits.size / temperature)
    is_coord, is_size = token_ids == paths.coord_token, token_ids == paths.size_token
    log_prob = jnp.take_along_axis(token, chosen[..., None], axis=-1)[..., 0]
    of_coord = jnp.take_along_axis(coord, bins[..., :1], axis=-1)[..., 0]
    of_size = jnp.take_along_axis(size, bins[..., None], axis=-1)[..., 0].sum(axis=-1)
    log_prob = log_prob + jnp.where(is_coord, of_coord, 0.0) + jnp.where(is_size, of_size, 0.0)
    entropy = _entropy(token) + jnp.where(is_coord, _entropy(coord), 0.0)
    entropy = entropy + jnp.where(is_size, _entropy(size).sum(axis=-1), 0.0)
    return TokenStatistics(log_probs=log_prob, entropy=entropy)
