"""Rollouts → drawn masks → IoU and reward, on device."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moonseg_jax.config import ModelConfig
from moonseg_jax.paths.decode import box_from_tokens, edges_from_tokens
from moonseg_jax.paths.raster import coverage
from moonseg_jax.paths.vocabulary import TokenTables
from moonseg_jax.rewards import mask_iou, shaped_reward
from moonseg_jax.types import EdgeBatch, Rollouts, Scored

ROWS_AT_ONCE = 64
"""Masks rasterised together; more at once would not fit the caches."""


class Drawn(NamedTuple):
    """What rollouts draw."""

    box: Float[Array, "N 4"]
    edges: EdgeBatch


def read_paths(config: ModelConfig, tables: TokenTables, rollouts: Rollouts) -> Drawn:
    """Boxes and edges of completions."""
    box = box_from_tokens(rollouts.token_ids, rollouts.bins, config.region, config.paths)
    return Drawn(box, edges_from_tokens(rollouts.token_ids, rollouts.lengths, box, tables))


def score(
    config: ModelConfig,
    rollouts: Rollouts,
    drawn: Drawn,
    truth: Bool[Array, "Q R R"],
    length_penalty: float,
) -> Scored:
    """IoU at the reward raster and the shaped reward.

    Args:
      config: names the raster.
      rollouts: N = Q*G completions, samples of one prompt consecutive.
      drawn: see `read_paths`.
      truth: ground truth per prompt.
      length_penalty: reward lost per completion token.
    """
    group = drawn.box.shape[0] // truth.shape[0]
    truth_rows = jnp.repeat(truth, group, axis=0)

    def iou_of(one: tuple[EdgeBatch, Array]) -> Float[Array, ""]:
        edges, mask = one
        single = jax.tree.map(lambda leaf: leaf[None], edges)
        return mask_iou(coverage(single, config.paths.raster), mask[None])[0]

    iou = jax.lax.map(iou_of, (drawn.edges, truth_rows), batch_size=ROWS_AT_ONCE)
    return Scored(iou=iou, reward=shaped_reward(iou, rollouts.lengths, length_penalty))
