"""Supervised learning on traced targets: token cross-entropy, near misses, and a grounding heat map.

Tokens are learned over the whole vocabulary, not under the grammar: a decoder without our grammar, the official
engine among them, reads the same paths. Sums and counts travel separately and are divided once.
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
from moonseg_jax.learner.micro_batches import split_rows
from moonseg_jax.learner.state import LearnerState, apply_gradients
from moonseg_jax.learner.trainable import EVERYTHING, Trainable
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.paths.vocabulary import TokenTables
from moonseg_jax.rollout.log_probs import token_statistics
from moonseg_jax.types import PromptBatch, SumAndCount, TargetBatch

BOX_TOKENS = 3
"""Two coordinates and a size: what every completion with a target starts with."""


def _total(values: Float[Array, "*rows"], where: Bool[Array, "*rows"]) -> SumAndCount:
    return jnp.sum(jnp.where(where, values, 0.0)), jnp.sum(where).astype(jnp.float32)


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
    keys: Float[Array, "L I H p d"],
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
    scores = jnp.einsum("LIKPd,LIpd->LIKPp", looking, keys[:taught, :, 0]) * width**-0.5
    cross_entropy = -jnp.einsum("IKp,LIKPp->IKP", shares, nn.log_softmax(scores)) / taught
    counts = learned & (shares.sum(axis=-1, keepdims=True) > 0.5)
    return _total(cross_entropy, counts)


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
    return _total(nats, counts)


def ranked_probability_score(logits: Float[Array, "... b"], bins: Int[Array, "..."]) -> Float[Array, "..."]:
    """Mean squared distance of the cumulative distribution from the truth's, in units of the whole scale.

    A strictly proper score (Epstein 1969): unlike smoothed labels it knows that a bin next to the true one is nearly
    right without teaching the policy to spread its samples.
    """
    below = jnp.cumsum(nn.softmax(logits), axis=-1)
    return jnp.mean((below - (jnp.arange(logits.shape[-1]) >= bins[..., None])) ** 2, axis=-1)


def path_distance(
    logits: Float[Array, "N T V"], token_ids: Int[Array, "N T"], learned: Bool[Array, "N T"], tables: TokenTables
) -> SumAndCount:
    """Ranked probability score of the numbers of paths, over the tokens that numbers are written with."""
    is_number = token_ids[..., None] == tables.number_ids
    scores = ranked_probability_score(logits[..., tables.number_ids], jnp.argmax(is_number, axis=-1))
    counts = learned & jnp.any(is_number, axis=-1)
    return _total(scores, counts)


def sft_sums(
    model: Moondream,
    tables: TokenTables,
    params: Any,
    grounding: bool,
    batch: PromptBatch,
    targets: TargetBatch,
    tokens: int,
) -> dict[str, SumAndCount]:
    """Losses of one batch as sums and counts.

    Args:
      model: the policy.
      tables: which tokens are numbers, and their order.
      params: the policy's parameters.
      grounding: whether to compute the auxiliary losses `heat` and `words` too.
      batch: images and prompts.
      targets: traced completions.
      tokens: only the first `tokens` of each completion are learned (4 covers the box).

    Returns:
      `box` (nats per box token), `path` (nats per path token), `box_distance` (ranked probability score per box
      token), `path_distance` (the same per number of a path), `heat` (nats per token of a phrase), `words` (nats per
      token of a phrase).
    """
    rows = targets.lengths.size
    token_ids = targets.token_ids.reshape(rows, -1)[:, :tokens]
    bins = targets.bins.reshape(rows, -1, 2)[:, :tokens]
    lengths = targets.lengths.reshape(rows)
    forward = completion_logits(model, params, batch, token_ids, bins)
    steps = jnp.arange(tokens)
    learned = steps < lengths[:, None]
    is_coord, is_size = token_ids == model.config.paths.coord_token, token_ids == model.config.paths.size_token
    is_box = is_coord | is_size
    every_token = jnp.ones(model.config.text.vocabulary, bool)
    nats = -token_statistics(forward.logits, every_token, token_ids, token_ids, bins, model.config.paths).log_probs

    # The grammar puts the box first: the rows behind it have no bins to score.
    of_coord = ranked_probability_score(forward.logits.coord[:, :BOX_TOKENS], bins[:, :BOX_TOKENS, 0])
    of_size = ranked_probability_score(forward.logits.size[:, :BOX_TOKENS], bins[:, :BOX_TOKENS]).sum(axis=-1)
    distance = jnp.where(is_coord[:, :BOX_TOKENS], of_coord, 0.0) + jnp.where(is_size[:, :BOX_TOKENS], of_size, 0.0)
    sums = {
        "box": _total(nats, learned & is_box),
        "path": _total(nats, learned & ~is_box),
        "box_distance": _total(distance, (learned & is_box)[:, :BOX_TOKENS]),
        "path_distance": path_distance(forward.logits.token, token_ids, learned, tables),
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
    tables: TokenTables,
    optimizer: optax.GradientTransformation,
    *,
    tokens: int,
    box_weight: float,
    box_distance_weight: float,
    path_distance_weight: float,
    heat_weight: float,
    words_weight: float,
    average_decay: float,
    trainable: Trainable = EVERYTHING,
    microbatches: int = 1,
) -> Callable[[LearnerState, PromptBatch, TargetBatch], tuple[LearnerState, dict[str, SumAndCount]]]:
    """A compiled gradient step; parameters are `{"policy": …}`.

    Args:
      model: the policy.
      tables: see `sft_sums`.
      optimizer: see `optimizers`.
      tokens: see `sft_sums`.
      box_weight: of the mean over box tokens.
      box_distance_weight: of the mean ranked probability score over box tokens.
      path_distance_weight: of the mean ranked probability score over numbers of paths.
      heat_weight: of the mean over heat maps.
      words_weight: of the mean over words of patches.
      average_decay: of the averaged weights.
      trainable: what gradients reach.
      microbatches: parts whose gradients are computed one after the other; any number that divides the images makes
        the same step.
    """
    weights = {
        "box": box_weight, "path": 1.0, "box_distance": box_distance_weight, "path_distance": path_distance_weight,
        "heat": heat_weight, "words": words_weight,
    }  # fmt: skip

    def sums_of(policy: Any, batch: PromptBatch, targets: TargetBatch) -> dict[str, SumAndCount]:
        return sft_sums(model, tables, policy, True, batch, targets, tokens)

    def part_loss(
        params: Any, frozen: Any, part: tuple[PromptBatch, TargetBatch], counts: dict[str, Array] | None
    ) -> tuple[Array, dict[str, SumAndCount]]:
        """A micro-batch's share of the loss: its sums, over the counts of the whole batch."""
        sums = sums_of(trainable.whole(params["policy"], frozen), *part)
        over = {name: count for name, (_, count) in sums.items()} if counts is None else counts
        means = [weights[name] * total / jnp.maximum(over[name], 1.0) for name, (total, _) in sums.items()]
        return jnp.sum(jnp.stack(means)), sums

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: LearnerState, batch: PromptBatch, targets: TargetBatch) -> tuple[LearnerState, Any]:
        gradient = jax.value_and_grad(part_loss, has_aux=True)
        if microbatches == 1:
            (value, sums), gradients = gradient(state.params, state.frozen, (batch, targets), None)
        else:
            # Counts are of the data alone: the compiler drops the pass that makes the sums beside them.
            policy = trainable.whole(state.params["policy"], state.frozen)
            counts = {name: count for name, (_, count) in sums_of(policy, batch, targets).items()}

            def accumulate(gradients: Any, part: Any) -> tuple[Any, Any]:
                figures, own = gradient(state.params, state.frozen, part, counts)
                return jax.tree.map(jnp.add, gradients, own), figures

            parts = split_rows((batch, targets), len(batch.valid), microbatches)
            zeros = jax.tree.map(jnp.zeros_like, state.params)
            gradients, figures = jax.lax.scan(accumulate, zeros, parts)
            value, sums = jax.tree.map(functools.partial(jnp.sum, axis=0), figures)
        state, norm = apply_gradients(state, value, gradients, optimizer, average_decay)
        return state, {**sums, "gradient_norm": (norm, jnp.ones(()))}

    return step
