"""Rows → every term, and the reward a spec makes of them. Nothing leaves the device."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import assert_never

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.rewards.row import RewardRow
from moonseg_jax.rewards.spec import RewardSpec
from moonseg_jax.rewards.terms import Term
from moonseg_jax.rewards.weighted_term import WeightedTerm


@flax.struct.dataclass
class RowValues:
    """All that a reward is combined from; of one row, or of N."""

    terms: dict[str, Float[Array, "*N"]]
    """Every term before weighting, by label."""
    iou: Float[Array, "*N"]
    """Raw IoU; not a number where the row is not finite."""
    has_target: Bool[Array, "*N"]
    draws_nothing: Bool[Array, "*N"]
    is_finite: Bool[Array, "*N"]


@flax.struct.dataclass
class Rewards:
    """The judgement of one row, or of N."""

    reward: Float[Array, "*N"]
    """Shaped reward."""
    terms: dict[str, Float[Array, "*N"]]
    """Every term before weighting, by label."""
    iou: Float[Array, "*N"]
    """Raw IoU, as `mask_iou`."""


def row_values(used: Iterable[WeightedTerm], row: RewardRow) -> RowValues:
    """Every term of one row; terms of several specs may be given together, each is computed once."""
    terms = {one.label: one.definition.value(row, **one.all_parameters) for one in used}
    return RowValues(
        terms=terms,
        iou=jnp.where(row.is_finite, row.iou, jnp.nan),
        has_target=row.has_target,
        draws_nothing=row.draws_nothing,
        is_finite=row.is_finite,
    )


def reward_of(spec: RewardSpec, values: RowValues, step: Int[Array, ""] | int) -> Float[Array, "*N"]:
    """The shaped reward.

    A phrase without target earns 1 if nothing is drawn and 0 if anything is. A row with a coverage, box or point
    that is not finite earns NaN, which the learner must skip and count: it is never turned into a number.

    Args:
      spec: names the terms, all of them in `values`.
      values: of one row, or of N.
      step: of training, for schedules; may be traced.
    """
    empty_answer = values.draws_nothing.astype(jnp.float32)
    reward = jnp.where(values.has_target, _combined(spec, values, step), empty_answer)
    return jnp.where(values.is_finite, reward, jnp.nan)


def row_reward(spec: RewardSpec, row: RewardRow, step: Int[Array, ""] | int) -> Rewards:
    """Judges one row: for callers that draw and judge row by row, so that a mask never leaves the caches."""
    values = row_values(spec.terms, row)
    return Rewards(reward=reward_of(spec, values, step), terms=values.terms, iou=values.iou)


def batch_rewards(spec: RewardSpec, rows: RewardRow, step: Int[Array, ""] | int, at_once: int | None = None) -> Rewards:
    """Judges N rows.

    Args:
      spec: the reward's shape.
      rows: N in front of every field.
      step: of training; may be traced.
      at_once: rows judged together, the others wait; default all.
    """

    def judge(row: RewardRow) -> Rewards:
        return row_reward(spec, row, step)

    return jax.vmap(judge)(rows) if at_once is None else jax.lax.map(judge, rows, batch_size=at_once)


def weight_at(term: WeightedTerm, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """A term's weight at a step that may be traced: linear between the points of its schedule."""
    steps, weights = (jnp.asarray(column, jnp.float32) for column in zip(*term.schedule))
    return jnp.interp(jnp.asarray(step, jnp.float32), steps, weights)


def _combined(spec: RewardSpec, values: RowValues, step: Int[Array, ""] | int) -> Float[Array, "*N"]:
    def chosen(wanted: Callable[[Term], bool]) -> list[tuple[Array, Array]]:
        """(weight, value) of the terms that are wanted."""
        return [(weight_at(one, step), values.terms[one.label]) for one in spec.terms if wanted(one.definition)]

    def total(weighted: list[tuple[Array, Array]]) -> Float[Array, "*N"]:
        return sum((weight * value for weight, value in weighted), start=jnp.zeros_like(values.iou))

    qualities, costs = chosen(lambda term: term.kind == "quality"), chosen(lambda term: term.kind == "cost")
    match spec.combination:
        case "sum":
            return total(qualities) + total(costs)
        case "product":
            powers = [value**weight for weight, value in qualities]
            return math.prod(
                [*powers, *(jnp.maximum(1.0 + weight * value, 0.0) for weight, value in costs)],
                start=jnp.ones_like(values.iou),
            )
        case "min":
            softened = [1.0 - weight * (1.0 - value) for weight, value in qualities]
            return functools.reduce(jnp.minimum, softened) + total(costs)
        case "gated":
            assert spec.gate is not None, "RewardSpec refuses a gated reward without a gate"
            behind = total(chosen(lambda term: term.axis != 1))
            return total(chosen(lambda term: term.axis == 1)) + jnp.where(values.iou >= spec.gate, behind, 0.0)
        case _:
            assert_never(spec.combination)
