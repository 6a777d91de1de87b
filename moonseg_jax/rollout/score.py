"""Rollouts → drawn masks → IoU, reward terms and reward, on device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import ModelConfig
from moonseg_jax.metrics import NEAR_BOUNDARY_PX
from moonseg_jax.paths.decode import box_from_tokens, edges_from_tokens
from moonseg_jax.paths.raster import coverage
from moonseg_jax.paths.vocabulary import TokenTables
from moonseg_jax.rewards import RewardSpec, WeightedTerm
from moonseg_jax.rewards.reward import RowValues, reward_of, row_values
from moonseg_jax.rewards.row import RewardRow
from moonseg_jax.types import EdgeBatch, Rollouts, Scored

ROWS_AT_ONCE = 64
"""Masks rasterised together; more at once would not fit the caches."""

NEAR_BOUNDARY = WeightedTerm(term="near_boundary_iou", parameters={"pixels": NEAR_BOUNDARY_PX})
"""Judged whatever the reward is, so that every run logs it."""


class Drawn(NamedTuple):
    """What rollouts draw."""

    box: Float[Array, "N 4"]
    edges: EdgeBatch


def read_paths(config: ModelConfig, tables: TokenTables, rollouts: Rollouts) -> Drawn:
    """Boxes and edges of completions."""
    box = box_from_tokens(rollouts.token_ids, rollouts.bins, config.region, config.paths)
    return Drawn(box, edges_from_tokens(rollouts.token_ids, rollouts.lengths, box, tables))


class Completions(NamedTuple):
    """What is judged of N completions; fields as in `RewardRow`, whose coverage is still to be drawn."""

    truth: Bool[Array, "N R R"]
    box: Float[Array, "N 4"]
    length: Int[Array, " N"]
    reference_length: Int[Array, " N"]
    finish: Int[Array, " N"]
    edges: EdgeBatch


def judge(used: Iterable[WeightedTerm], completions: Completions) -> RowValues:
    """Draws and judges row by row, so that no mask leaves the caches.

    Args:
      used: terms to compute, of one reward or of several; those of one label once.
      completions: N of them; the raster is that of their truth.

    Returns:
      Every term before weighting, raw IoU, and what `reward_of` needs besides: all `[N]`.
    """
    terms = list({one.label: one for one in used}.values())

    def draw_and_judge(one: Completions) -> RowValues:
        single = jax.tree.map(lambda leaf: leaf[None], one.edges)
        drawn = coverage(single, one.truth.shape[-1])[0]
        return row_values(terms, RewardRow(coverage=drawn, **one._asdict()))

    return jax.lax.map(draw_and_judge, completions, batch_size=ROWS_AT_ONCE)


def score(
    rollouts: Rollouts,
    drawn: Drawn,
    truth: Bool[Array, "Q R R"],
    reference_lengths: Int[Array, " Q"],
    reward: RewardSpec,
    step: Int[Array, ""] | int,
) -> Scored:
    """IoU at the reward raster, the reward's terms, and the shaped reward.

    Args:
      rollouts: N = Q*G completions, samples of one prompt consecutive.
      drawn: see `read_paths`.
      truth: ground truth per prompt, at the reward raster.
      reference_lengths: tokens of the traced target per prompt.
      reward: the reward's shape.
      step: of training, for weights that change; may be traced.
    """
    group = drawn.box.shape[0] // truth.shape[0]
    completions = Completions(
        truth=jnp.repeat(truth, group, axis=0), box=drawn.box, length=rollouts.lengths,
        reference_length=jnp.repeat(reference_lengths, group), finish=rollouts.finish, edges=drawn.edges,
    )  # fmt: skip
    values = judge((*reward.terms, NEAR_BOUNDARY), completions)
    return Scored(iou=values.iou, reward=reward_of(reward, values, step), terms=values.terms)
