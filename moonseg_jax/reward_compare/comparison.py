"""The comparison itself: figures of every shape and of every pair of shapes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from moonseg_jax.config import ConfigError
from moonseg_jax.reward_compare.scoring import rewards_of
from moonseg_jax.reward_compare.statistics import (
    contradictions,
    flat,
    leave_one_out,
    rank_correlation,
    sign_flips,
    spread,
)
from moonseg_jax.rewards import RewardSpec
from moonseg_jax.rewards.shapes import SHAPES, shape
from moonseg_jax.rollout.stored import StoredRollouts

BASELINE = "iou"
"""The shape that all others are held against."""
EXAMPLES_PER_SHAPE = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapeFigures:
    """What one shape makes of the rollouts."""

    mean: float
    """Mean reward, over all groups."""
    spread: float
    """Mean standard deviation within a group, over all groups."""
    flat_groups: float
    """Share of all groups whose samples earn the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairFigures:
    """Two shapes beside each other, over the groups that are learned from: those not flat in raw IoU."""

    first: str
    second: str
    rank_correlation: float | None
    """Spearman's ρ of the advantages of all samples; None where one shape ranks nothing."""
    sign_flips: float | None
    """Share of samples that one shape encourages and the other discourages; None without samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Two samples of one group whose order a shape turns round."""

    shape: str
    group: int
    """Row of the stored groups."""
    by_iou: int
    """The sample of the group that plain IoU prefers."""
    by_shape: int
    """The one that the shape prefers."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Everything that was found."""

    shapes: Mapping[str, RewardSpec]
    """Plain IoU first."""
    iou: Float[np.ndarray, "Q G"]
    """Raw IoU of all stored samples."""
    rewards: Mapping[str, Float[np.ndarray, "Q G"]]
    """Shaped rewards of all stored samples, by shape."""
    figures: Mapping[str, ShapeFigures]
    pairs: tuple[PairFigures, ...]
    """All pairs, those with plain IoU first."""
    contradictions: tuple[Contradiction, ...]
    """At most `EXAMPLES_PER_SHAPE` of each shape, the strongest first."""
    learned: int
    """Groups that are learned from."""
    not_finite: int
    """Groups left out because a reward in them is not a number."""

    def pair(self, first: str, second: str) -> PairFigures:
        """Figures of two shapes, in either order."""
        return next(one for one in self.pairs if {one.first, one.second} == {first, second})


def chosen_shapes(
    names: tuple[str, ...], of_run: RewardSpec | None = None, of_sweep: Mapping[str, RewardSpec] | None = None
) -> dict[str, RewardSpec]:
    """Shapes by name, plain IoU first.

    Args:
      names: of `rewards.shapes`; none for all of them, or for those of the sweep alone.
      of_run: the run's own reward where it has no name; joins as `this run`.
      of_sweep: rewards by arm; an arm that is paid with plain IoU is the baseline itself.

    Raises:
      ConfigError: a name that does not exist; says the nearest. An arm with the name of a shape it is not.
    """
    named = {name: shape(name) for name in (BASELINE, *(names or (() if of_sweep is not None else SHAPES)))}
    for arm, spec in (of_sweep or {}).items():
        if arm in named and named[arm] != spec:
            raise ConfigError(f"the sweep's arm {arm!r} is not the shape of that name: call it otherwise")
        if spec != named[BASELINE]:
            named[arm] = spec
    return named | ({"this run": of_run} if of_run is not None else {})


def compare(stored: StoredRollouts, shapes: Mapping[str, RewardSpec], step: int | None = None) -> Comparison:
    """Scores the rollouts under every shape and holds the shapes against each other.

    Args:
      stored: Q groups of G completions.
      shapes: by name; the first is the baseline.
      step: where schedules stand; None for the step at which each group was sampled.
    """
    iou, rewards = rewards_of(stored, shapes, step)
    finite = np.isfinite(iou).all(axis=1) & np.all([np.isfinite(one).all(axis=1) for one in rewards.values()], axis=0)
    learned = finite & ~flat(np.where(finite[:, None], iou, 0.0))
    advantages = {name: leave_one_out(one[learned]) for name, one in rewards.items()}
    rows, baseline = np.flatnonzero(learned), next(iter(shapes))
    return Comparison(
        shapes=shapes,
        iou=iou,
        rewards=rewards,
        figures={name: _figures(one[finite]) for name, one in rewards.items()},
        pairs=tuple(_pair(first, second, advantages) for first, second in itertools.combinations(shapes, 2)),
        contradictions=tuple(
            one
            for name in shapes
            if name != baseline
            for one in _contradictions(name, rewards[baseline][rows], rewards[name][rows], rows)
        ),
        learned=int(learned.sum()),
        not_finite=int(np.count_nonzero(~finite)),
    )


def _figures(reward: Float[np.ndarray, "Q G"]) -> ShapeFigures:
    if not len(reward):
        return ShapeFigures(mean=float("nan"), spread=float("nan"), flat_groups=float("nan"))
    return ShapeFigures(mean=float(reward.mean()), spread=spread(reward), flat_groups=float(flat(reward).mean()))


def _pair(first: str, second: str, advantages: Mapping[str, Float[np.ndarray, "Q G"]]) -> PairFigures:
    ours, theirs = advantages[first], advantages[second]
    return PairFigures(
        first=first,
        second=second,
        rank_correlation=rank_correlation(ours, theirs) if ours.size else None,
        sign_flips=sign_flips(ours, theirs) if ours.size else None,
    )


def _contradictions(
    name: str, baseline: Float[np.ndarray, "Q G"], reward: Float[np.ndarray, "Q G"], rows: np.ndarray
) -> Iterator[Contradiction]:
    if not len(rows):
        return
    strength, places = contradictions(baseline, reward)
    for group in np.argsort(-strength, kind="stable")[:EXAMPLES_PER_SHAPE]:
        if strength[group] > 0:
            by_iou, by_shape = map(int, places[group])
            yield Contradiction(shape=name, group=int(rows[group]), by_iou=by_iou, by_shape=by_shape)


def as_data(comparison: Comparison, stored: StoredRollouts, step: int | None) -> dict[str, Any]:
    """The comparison as JSON has it: what was compared, figures, and the examples by number."""
    first, last = int(stored.steps.min()), int(stored.steps.max())
    return {
        "groups": len(stored), "samples_per_group": stored.group, "raster": stored.truth.shape[-1],
        "first_step": first, "last_step": last, "schedules_at": "as sampled" if step is None else step,
        "groups_learned": comparison.learned, "groups_not_finite": comparison.not_finite,
        "shapes": {
            name: {**dataclasses.asdict(comparison.figures[name]), "spec": spec.as_data()}
            for name, spec in comparison.shapes.items()
        },
        "pairs": [dataclasses.asdict(pair) for pair in comparison.pairs],
        "contradictions": [
            {**dataclasses.asdict(one), "example_id": int(stored.example_ids[one.group])}
            for one in comparison.contradictions
        ],
    }  # fmt: skip
