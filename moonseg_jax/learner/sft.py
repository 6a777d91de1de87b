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
from jaxtyping import Array, Bool, Float

from moonseg_jax.learner.forward import completion_logits
from moonseg_jax.learner.state import LearnerState, apply_gradients
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.paths.grammar import Grammar
from moonseg_jax.rollout.log_probs import token_statistics
from moonseg_jax.types import PromptBatch, SumAndCount, TargetBatch


def init_heat_map(key: jax.Array, width: int) -> dict[str, Float[Array, "D D"]]:
    """Parameters of the auxiliary heat map; they belong to training and are not part of the model."""
    keys = jax.random.split(key)
    return {name: jax.random.normal(k, (width, width)) * width**-0.5 for name, k in zip(("query", "key"), keys)}


def heat_map_loss(
    params: dict[str, Float[Array, "D D"]],
    prompt_end: Float[Array, "N D"],
    image: Float[Array, "I p D"],
    ground_truth: Bool[Array, "N R R"],
    valid: Bool[Array, " N"],
) -> SumAndCount:
    """Cross-entropy between attention of the prompt's last row over the patches and the target's share of each
    (antialiased, so a patch borrows a little from its neighbours).

    It tells the policy early where the object is, long before boxes are right. Rows without target do not count.
    """
    images, patches, width = image.shape
    grid = round(patches**0.5)
    normed_query = prompt_end * jax.lax.rsqrt(jnp.mean(prompt_end**2, axis=-1, keepdims=True) + 1e-6)
    normed_image = image * jax.lax.rsqrt(jnp.mean(image**2, axis=-1, keepdims=True) + 1e-6)
    query = (normed_query @ params["query"]).reshape(images, -1, width)
    scores = jnp.einsum("IKD,IpD->IKp", query, normed_image @ params["key"]) * width**-0.5
    log_probs = nn.log_softmax(scores.reshape(-1, patches))
    share = jax.image.resize(ground_truth.astype(jnp.float32), (ground_truth.shape[0], grid, grid), "linear")
    share = share.reshape(-1, patches)
    area = share.sum(axis=-1)
    counts = valid & (area > 0)
    cross_entropy = -(share * log_probs).sum(axis=-1) / jnp.maximum(area, 1e-6)
    return jnp.sum(jnp.where(counts, cross_entropy, 0.0)), jnp.sum(counts).astype(jnp.float32)


def sft_sums(
    model: Moondream,
    grammar: Grammar,
    params: Any,
    heat_map: Any,
    batch: PromptBatch,
    targets: TargetBatch,
    tokens: int,
) -> dict[str, SumAndCount]:
    """Losses of one batch as sums and counts.

    Args:
      model: the policy.
      grammar: its mask; forced tokens cost nothing.
      params: the policy's parameters.
      heat_map: see `init_heat_map`; None leaves that loss out.
      batch: images and prompts.
      targets: traced completions.
      tokens: only the first `tokens` of each completion are learned (4 covers the box).

    Returns:
      `box` (nats per box token), `path` (nats per path token), `heat` (nats per phrase).
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
    is_box = (token_ids == model.config.paths.coord_token) | (token_ids == model.config.paths.size_token)
    # Past the end the target is not a legal token; any legal one keeps the masked row finite.
    safe_ids = jnp.where(learned, token_ids, jnp.argmax(mask, axis=-1))
    nats = -token_statistics(forward.logits, mask, safe_ids, bins, model.config.paths).log_probs

    def total(where: Array) -> SumAndCount:
        return jnp.sum(jnp.where(where, nats, 0.0)), jnp.sum(where).astype(jnp.float32)

    truth = batch.ground_truth.reshape(rows, *batch.ground_truth.shape[2:])
    sums = {"box": total(learned & is_box), "path": total(learned & ~is_box)}
    if heat_map is not None:
        valid = batch.valid.reshape(rows)
        sums["heat"] = heat_map_loss(heat_map, forward.prompt_end, forward.image, truth, valid)
    return sums


def make_sft_step(
    model: Moondream,
    grammar: Grammar,
    optimizer: optax.GradientTransformation,
    *,
    tokens: int,
    box_weight: float,
    heat_weight: float,
    average_decay: float,
) -> Callable[[LearnerState, PromptBatch, TargetBatch], tuple[LearnerState, dict[str, SumAndCount]]]:
    """A compiled gradient step; parameters are `{"policy": …, "heat_map": …}`.

    Args:
      model: the policy.
      grammar: its mask.
      optimizer: see `optimizers`.
      tokens: see `sft_sums`.
      box_weight: of the mean over box tokens.
      heat_weight: of the mean over heat maps.
      average_decay: of the averaged weights.
    """
    weights = {"box": box_weight, "path": 1.0, "heat": heat_weight}

    def loss(params: Any, batch: PromptBatch, targets: TargetBatch) -> tuple[Array, dict[str, SumAndCount]]:
        sums = sft_sums(model, grammar, params["policy"], params["heat_map"], batch, targets, tokens)
        means = [weights[name] * total / jnp.maximum(count, 1.0) for name, (total, count) in sums.items()]
        return jnp.sum(jnp.stack(means)), sums

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: LearnerState, batch: PromptBatch, targets: TargetBatch) -> tuple[LearnerState, Any]:
        gradients, sums = jax.grad(loss, has_aux=True)(state.params, batch, targets)
        state, norm = apply_gradients(state, gradients, optimizer, average_decay)
        return state, {**sums, "gradient_norm": (norm, jnp.ones(()))}

    return step
