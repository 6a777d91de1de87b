"""Supervised learning on traced targets: token cross-entropy under the grammar, and a grounding heat map.

Sums and counts travel separately and are divided once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.learner.forward import completion_logits
from moonseg_jax.learner.state import LearnerState, apply_gradients
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.paths.grammar import Grammar
from moonseg_jax.rollout.log_probs import token_statistics
from moonseg_jax.types import PromptBatch, SumAndCount, TargetBatch


def _normed(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def patch_shares(ground_truth: Bool[Array, "I K R R"], patches: int) -> Float[Array, "I K p"]:
    """How a mask is spread over the image's patches (antialiased); sums to 1, or to 0 without target."""
    grid = round(patches**0.5)
    shape = (*ground_truth.shape[:2], grid, grid)
    share = jax.image.resize(ground_truth.astype(jnp.float32), shape, "linear").reshape(*shape[:2], patches)
    return share / jnp.maximum(share.sum(axis=-1, keepdims=True), 1e-6)


def heat_map_loss(
    queries: Float[Array, "L I*K P H d"],
    keys: Float[Array, "L I p H d"],
    shares: Float[Array, "I K p"],
    learned: Bool[Array, "I K P"],
) -> SumAndCount:
    """Cross-entropy between where a phrase's tokens look in the image and the target's share of each patch.

    It supervises the first head of every routed layer but the last (of the only one, where there is one): a colour
    word finds its patches in one step of attention, and the rows behind it learn from it where the object is, long
    before boxes are right. Rows without target do not count.
    """
    layers, _, tokens, _, width = queries.shape
    images, phrases, _ = shares.shape
    taught = max(layers - 1, 1)
    looking = queries[:taught, :, :, 0].reshape(taught, images, phrases, tokens, width)
    scores = jnp.einsum("LIKPd,LIpd->LIKPp", looking, keys[:taught, :, :, 0]) * width**-0.5
    cross_entropy = -jnp.einsum("IKp,LIKPp->IKP", shares, nn.log_softmax(scores)) / taught
    counts = learned & (shares.sum(axis=-1, keepdims=True) > 0.5)
    return jnp.sum(jnp.where(counts, cross_entropy, 0.0)), jnp.sum(counts).astype(jnp.float32)


def patch_words_loss(
    embedding: Float[Array, "V D"],
    image: Float[Array, "I p D"],
    shares: Float[Array, "I K p"],
    prompt_ids: Int[Array, "I K P"],
    learned: Bool[Array, "I K P"],
) -> SumAndCount:
    """Cross-entropy of a phrase's tokens under what the patches of its target say.

    Patches speak by their likeness to the decoder's own word embeddings, so that a word finds its patches in one
    step of attention. Telling shapes and colours apart through paths and boxes alone takes far longer.
    """
    words = nn.log_softmax(_normed(image) @ embedding.T * embedding.shape[-1] ** -0.5)
    spoken = jnp.einsum("IKp,IpV->IKV", shares, words)
    counts = learned & (shares.sum(axis=-1, keepdims=True) > 0.5)
    nats = -jnp.take_along_axis(spoken, prompt_ids, axis=-1)
    return jnp.sum(jnp.where(counts, nats, 0.0)), jnp.sum(counts).astype(jnp.float32)


def ranked_probability_score(logits: Float[Array, "... b"], bins: Int[Array, "..."]) -> Float[Array, "..."]:
    """Mean squared distance of the cumulative distribution from the truth's, in units of the whole scale.

    A strictly proper score (Epstein 1969): unlike smoothed labels it knows that a bin next to the true one is nearly
    right without teaching the policy to spread its samples.
    """
    below = jnp.cumsum(nn.softmax(logits), axis=-1)
    return jnp.mean((below - (jnp.arange(logits.shape[-1]) >= bins[..., None])) ** 2, axis=-1)


def sft_sums(
    model: Moondream,
    grammar: Grammar,
    params: Any,
    grounding: bool,
    batch: PromptBatch,
    targets: TargetBatch,
    tokens: int,
) -> dict[str, SumAndCount]:
    """Losses of one batch as sums and counts.

    Args:
      model: the policy.
      grammar: its mask; forced tokens cost nothing.
      params: the policy's parameters.
      grounding: whether to compute the auxiliary losses `heat` and `words` too.
      batch: images and prompts.
      targets: traced completions.
      tokens: only the first `tokens` of each completion are learned (4 covers the box).

    Returns:
      `box` (nats per box token), `path` (nats per path token), `distance` (ranked probability score per box token),
      `heat` (nats per token of a phrase), `words` (nats per token of a phrase).
    """
    rows = targets.lengths.size
    token_ids = targets.token_ids.reshape(rows, -1)[:, :tokens]
    bins = targets.bins.reshape(rows, -1, 2)[:, :tokens]
    lengths = targets.lengths.reshape(rows)
    forward = completion_logits(model, params, batch, token_ids, bins)
    steps = jnp.arange(tokens)
    remaining = jnp.broadcast_to(model.config.paths.max_new_tokens - steps, token_ids.shape)
    mask = grammar.mask(grammar.states(token_ids), remaining)
    learned = steps < lengths[:, None]
    is_coord, is_size = token_ids == model.config.paths.coord_token, token_ids == model.config.paths.size_token
    is_box = is_coord | is_size
    # Past the end the target is not a legal token; any legal one keeps the masked row finite.
    safe_ids = jnp.where(learned, token_ids, jnp.argmax(mask, axis=-1))
    nats = -token_statistics(forward.logits, mask, safe_ids, bins, model.config.paths).log_probs

    def total(values: Array, where: Array) -> SumAndCount:
        return jnp.sum(jnp.where(where, values, 0.0)), jnp.sum(where).astype(jnp.float32)

    of_coord = ranked_probability_score(forward.logits.coord, bins[..., 0])
    of_size = ranked_probability_score(forward.logits.size, bins).sum(axis=-1)
    distance = jnp.where(is_coord, of_coord, 0.0) + jnp.where(is_size, of_size, 0.0)
    sums = {
        "box": total(nats, learned & is_box),
        "path": total(nats, learned & ~is_box),
        "distance": total(distance, learned & is_box),
    }
    if grounding:
        shares = patch_shares(batch.ground_truth & batch.valid[..., None, None], forward.image.shape[1])
        position = jnp.arange(batch.prompt_ids.shape[-1])
        first, behind = len(model.config.paths.prompt_prefix), len(model.config.paths.prompt_suffix)
        since = position >= first
        phrase = since & (position < batch.prompt_lengths[..., None] - behind)
        pointing = since & (position < batch.prompt_lengths[..., None])
        sums["heat"] = heat_map_loss(forward.queries, forward.image_keys, shares, pointing)
        embedding = params["text"]["embedding"]["embedding"]
        sums["words"] = patch_words_loss(embedding, forward.image, shares, batch.prompt_ids, phrase)
    return sums


def make_sft_step(
    model: Moondream,
    grammar: Grammar,
    optimizer: optax.GradientTransformation,
    *,
    tokens: int,
    box_weight: float,
    distance_weight: float,
    heat_weight: float,
    words_weight: float,
    average_decay: float,
) -> Callable[[LearnerState, PromptBatch, TargetBatch], tuple[LearnerState, dict[str, SumAndCount]]]:
    """A compiled gradient step; parameters are `{"policy": …}`.

    Args:
      model: the policy.
      grammar: its mask.
      optimizer: see `optimizers`.
      tokens: see `sft_sums`.
      box_weight: of the mean over box tokens.
      distance_weight: of the mean ranked probability score over box tokens.
      heat_weight: of the mean over heat maps.
      words_weight: of the mean over words of patches.
      average_decay: of the averaged weights.
    """
    weights = {
        "box": box_weight, "path": 1.0, "distance": distance_weight, "heat": heat_weight, "words": words_weight,
    }  # fmt: skip

    def loss(params: Any, batch: PromptBatch, targets: TargetBatch) -> tuple[Array, dict[str, SumAndCount]]:
        sums = sft_sums(model, grammar, params["policy"], True, batch, targets, tokens)
        means = [weights[name] * total / jnp.maximum(count, 1.0) for name, (total, count) in sums.items()]
        return jnp.sum(jnp.stack(means)), sums

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: LearnerState, batch: PromptBatch, targets: TargetBatch) -> tuple[LearnerState, Any]:
        gradients, sums = jax.grad(loss, has_aux=True)(state.params, batch, targets)
        state, norm = apply_gradients(state, gradients, optimizer, average_decay)
        return state, {**sums, "gradient_norm": (norm, jnp.ones(()))}

    return step
