"""Keys per sample, and drawing tokens with them: what a sample's noise depends on, and nothing else does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from moonseg_jax.model.moondream import HeadLogits

GREEDY = 0.0
"""Temperature that takes the best token and the best bins."""


def sample_keys(
    seed_key: jax.Array, policy_version: Int[Array, ""] | int, example_ids: Int[Array, "I K"], group: int
) -> jax.Array:
    """One random key per sample, [I*K*group], from (seed, policy version, prompt id, sample index)."""
    version_key = jax.random.fold_in(seed_key, policy_version)
    prompt_keys = jax.vmap(lambda i: jax.random.fold_in(version_key, i))(example_ids.reshape(-1).astype(jnp.uint32))
    samples = jnp.arange(group)
    return jax.vmap(lambda key: jax.vmap(lambda g: jax.random.fold_in(key, g))(samples))(prompt_keys).reshape(-1)


def draw(
    logits: HeadLogits,
    mask: Bool[Array, "N A"],
    keys: jax.Array | None,
    steps: Int[Array, " N"],
    temperature: float,
) -> tuple[Int[Array, " N"], Int[Array, " N"], Int[Array, "N 2"]]:
    """Choice of a token, coordinate bin and size bins by the Gumbel-max rule, or by argmax at temperature 0.

    Coordinate and size bins share their noise: no token reads both.

    Args:
      logits: of the rows that predict the tokens, over A choices.
      mask: choices allowed.
      keys: [N], one per sample; None only where greedy.
      steps: tokens each sample has already.
      temperature: T > 0, or `GREEDY`.
    """
    masked = jnp.where(mask, logits.token, -jnp.inf)
    if temperature == GREEDY:
        return jnp.argmax(masked, -1), jnp.argmax(logits.coord, -1), jnp.argmax(logits.size, -1)
    assert keys is not None, "sampling needs a key for every sample"
    choices, coords, sizes = masked.shape[-1], logits.coord.shape[-1], 2 * logits.size.shape[-1]

    def noise_of(key: jax.Array, step: Int[Array, ""]) -> Array:
        return jax.random.gumbel(jax.random.fold_in(key, step), (choices + max(coords, sizes),))

    token, bins = jnp.split(jax.vmap(noise_of)(keys, steps), [choices], axis=-1)
    return (
        jnp.argmax(masked / temperature + token, axis=-1),
        jnp.argmax(logits.coord / temperature + bins[:, :coords], axis=-1),
        jnp.argmax(logits.size / temperature + bins[:, :sizes].reshape(logits.size.shape), axis=-1),
    )
