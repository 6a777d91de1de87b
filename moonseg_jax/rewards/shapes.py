"""Named reward shapes for sweeps. Those open to no known hack are recommended; the others say what they are open to.

Hacks, each beside an honest rough outline of the same object: `box_echo` draws the true box, `full_frame` the whole
image, `empty` nothing; `tiny_subpaths` adds specks to the honest outline, `overlong` adds vertices that change
nothing until it has more than twice the tokens of the traced target.
A shape is open to a hack if the hack earns as much as the honest outline or more, at some step, on a blob, a thin
slanted object, one with a hole, or one of two parts. Tests hold these lists true.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from moonseg_jax.config import ConfigError
from moonseg_jax.rewards.checks import nearest
from moonseg_jax.rewards.spec import RewardSpec
from moonseg_jax.rewards.weighted_term import WeightedTerm

Hack = Literal["box_echo", "full_frame", "empty", "tiny_subpaths", "overlong"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedShape:
    """A reward shape to try."""

    name: str
    spec: RewardSpec
    question: str
    """What trying it tells."""
    hacks: tuple[Hack, ...] = ()
    """What it is open to."""

    @property
    def recommended(self) -> bool:
        """Whether it is open to none of the known hacks."""
        return not self.hacks


def shape(name: str) -> RewardSpec:
    """The spec of a named shape.

    Raises:
      ConfigError: there is none of that name; says the nearest.
    """
    if not isinstance(name, str) or name not in SHAPES:
        raise ConfigError(f"reward: no shape {name!r}; {nearest(name, SHAPES)}")
    return SHAPES[name].spec


_IOU = WeightedTerm(term="iou")
_EXCESS = WeightedTerm(term="excess_tokens", weight=0.2, parameters={"slack": 1.25})
_FINISHED = WeightedTerm(term="validity", weight=0.1)
_PADDING: tuple[Hack, ...] = ("tiny_subpaths", "overlong")


def _half(term: str, **parameters: float) -> tuple[WeightedTerm, WeightedTerm]:
    """Half IoU, half another quality."""
    return WeightedTerm(term="iou", weight=0.5), WeightedTerm(term=term, weight=0.5, parameters=parameters)


_ALL = (
    NamedShape(
        name="iou", question="The baseline: what does raw mask IoU do?", spec=RewardSpec(terms=(_IOU,)),
        hacks=_PADDING,
    ),
    NamedShape(
        name="soft_dice", question="Do exact areas tell more than counted pixels?",
        spec=RewardSpec(terms=(WeightedTerm(term="soft_dice"),)), hacks=_PADDING,
    ),
    NamedShape(
        name="threshold", question="Is a hit enough of a signal?",
        spec=RewardSpec(terms=(WeightedTerm(term="iou_at_least"),)), hacks=("box_echo", *_PADDING),
    ),
    NamedShape(
        name="mean_over_thresholds", question="Do steps between .5 and .95 climb better than the slope?",
        spec=RewardSpec(terms=(WeightedTerm(term="mean_over_thresholds"),)), hacks=_PADDING,
    ),
    NamedShape(
        name="seg_zero_like", question="How far do the box rewards of agents lead when the policy draws itself?",
        spec=RewardSpec(
            terms=(
                WeightedTerm(term="iou_at_least"), WeightedTerm(term="box_iou"), WeightedTerm(term="box_closeness"),
                _FINISHED,
            )
        ),
        hacks=("box_echo", *_PADDING),
    ),
    NamedShape(
        name="iou_dear_tokens", question="The control that must fail: tokens so dear that saying less pays.",
        spec=RewardSpec(terms=(_IOU, WeightedTerm(term="tokens", weight=2.0, parameters={"full": 64}))),
        hacks=("box_echo", "full_frame", "empty"),
    ),
    NamedShape(
        name="iou_cheap_tokens", question="Does a small price per token keep paths short?",
        spec=RewardSpec(terms=(_IOU, WeightedTerm(term="tokens", parameters={"full": 2000}))),
    ),
    NamedShape(
        name="iou_excess", question="Is it better to charge only what exceeds the traced target?",
        spec=RewardSpec(terms=(_IOU, _EXCESS, _FINISHED)),
    ),
    NamedShape(
        name="iou_excess_when_good", question="Should a poor outline be free to grow?",
        spec=RewardSpec(
            terms=(
                _IOU,
                WeightedTerm(term="excess_tokens", weight=0.1, parameters={"slack": 1.25, "above": 0.5}),
                _FINISHED,
            )
        ),
    ),
    NamedShape(
        name="log_iou", question="Does paying for the last points of IoU refine outlines?",
        spec=RewardSpec(terms=(WeightedTerm(term="log_iou"), _EXCESS, _FINISHED)),
    ),
    NamedShape(
        name="iou_squared", question="The same question with a gentler slope.",
        spec=RewardSpec(terms=(WeightedTerm(term="iou_power"), _EXCESS, _FINISHED)),
    ),
    NamedShape(
        name="boundary", question="Does boundary IoU, as it is reported, sharpen outlines?",
        spec=RewardSpec(terms=(*_half("boundary_iou"), _EXCESS, _FINISHED)),
    ),
    NamedShape(
        name="near_boundary", question="Does a boundary two pixels wide sharpen them more, or only starve the signal?",
        spec=RewardSpec(terms=(*_half("near_boundary_iou"), _EXCESS, _FINISHED)),
    ),
    NamedShape(
        name="boundary_closeness", question="Is a distance, which grows before outlines touch, a better boundary term?",
        spec=RewardSpec(terms=(*_half("boundary_closeness", reach=0.05), _EXCESS, _FINISHED)),
    ),
    NamedShape(
        name="least_of_both", question="Does the worse of area and outline make the better teacher?",
        spec=RewardSpec(
            terms=(_IOU, WeightedTerm(term="boundary_iou"), _EXCESS, _FINISHED), combination="min"
        ),
    ),
    NamedShape(
        name="area_times_boundary", question="Or their product?",
        spec=RewardSpec(
            terms=(*_half("boundary_iou"), _EXCESS, _FINISHED), combination="product"
        ),
    ),
    NamedShape(
        name="boundary_behind_gate", question="Should the boundary wait until the object is found?",
        spec=RewardSpec(
            terms=(
                _IOU,
                WeightedTerm(term="near_boundary_iou", weight=0.5),
                WeightedTerm(term="excess_tokens", weight=0.1, parameters={"slack": 1.25}),
            ),
            combination="gated", gate=0.5,
        ),
    ),
    NamedShape(
        name="box_until_good", question="Does a box signal help while masks are poor?",
        spec=RewardSpec(
            terms=(_IOU, WeightedTerm(term="box_until_good", weight=0.1), _EXCESS, _FINISHED)
        ),
    ),
    NamedShape(
        name="box_then_mask", question="Does a curriculum from box to mask start faster?",
        spec=RewardSpec(
            terms=(
                WeightedTerm(term="iou", weight=((0, 0.1), (200, 1.0))),
                WeightedTerm(term="box_iou", weight=((0, 0.9), (200, 0.0))),
                _EXCESS, _FINISHED,
            )
        ),
        hacks=("box_echo",),
    ),
    NamedShape(
        name="boundary_later", question="Does the boundary do more once the area is right?",
        spec=RewardSpec(
            terms=(
                _IOU, WeightedTerm(term="near_boundary_iou", weight=((100, 0.0), (400, 1.0))), _EXCESS, _FINISHED,
            )
        ),
    ),
    NamedShape(
        name="topology", question="Do parts, holes and clean outlines have to be asked for?",
        spec=RewardSpec(
            terms=(
                _IOU, WeightedTerm(term="euler", weight=0.1), WeightedTerm(term="specks", weight=0.1),
                WeightedTerm(term="crossings", weight=0.1), _EXCESS, _FINISHED,
            )
        ),
    ),
)  # fmt: skip

SHAPES: Mapping[str, NamedShape] = {one.name: one for one in _ALL}
"""Every named shape."""
