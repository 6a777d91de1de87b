"""The table of reward terms: names, parameters, ranges, and what each reads of a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

from jaxtyping import Array, Float

from moonseg_jax.rewards import boundary, box, length, overlap, topology, validity
from moonseg_jax.rewards.row import RewardRow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """A number that shapes a term."""

    default: float
    low: float
    high: float
    """Bounds, both allowed."""
    meaning: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """One reward term. More is better in every term: qualities lie in [0, 1], costs in [-1, 0]."""

    name: str
    axis: Literal[1, 2, 3, 4, 5, 6]
    """1 base, 2 boundary, 3 box, 4 validity, 5 length, 6 topology."""
    kind: Literal["quality", "cost"]
    value: Callable[..., Float[Array, ""]]
    """(row, every parameter by name) → value."""
    formula: Callable[..., Array]
    """The function of arrays behind `value`; its docstring has the formula and its source."""
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)

    @property
    def low(self) -> float:
        """Least value."""
        return 0.0 if self.kind == "quality" else -1.0

    @property
    def high(self) -> float:
        """Largest value."""
        return 1.0 if self.kind == "quality" else 0.0


def _radius(row: RewardRow, share: float) -> int:
    return boundary.boundary_radius(share, row.truth.shape[-1])


def _boundary_iou(row: RewardRow, share: float) -> Float[Array, ""]:
    return boundary.boundary_iou(row.drawn, row.truth, _radius(row, share))


def _share(default: float) -> Parameter:
    return Parameter(default=default, low=0.0, high=0.5, meaning="share of the raster's diagonal; at least one pixel")


_ABOVE = Parameter(default=0.0, low=0.0, high=1.0, meaning="IoU below which length is free; 0 for none")


BASE = (
    Term(name="iou", axis=1, kind="quality", formula=overlap.mask_iou, value=lambda row: row.iou),
    Term(
        name="soft_iou", axis=1, kind="quality", formula=overlap.soft_iou,
        value=lambda row: overlap.soft_iou(row.coverage, row.truth),
    ),
    Term(
        name="soft_dice", axis=1, kind="quality", formula=overlap.soft_dice,
        value=lambda row: overlap.soft_dice(row.coverage, row.truth),
    ),
    Term(
        name="iou_at_least", axis=1, kind="quality", formula=overlap.iou_at_least,
        value=lambda row, at: overlap.iou_at_least(row.iou, at),
        parameters={"at": Parameter(default=0.5, low=0.01, high=1.0, meaning="IoU to reach")},
    ),
    Term(
        name="mean_over_thresholds", axis=1, kind="quality", formula=overlap.mean_over_thresholds,
        value=lambda row: overlap.mean_over_thresholds(row.iou),
    ),
    Term(
        name="log_iou", axis=1, kind="quality", formula=overlap.log_iou,
        value=lambda row, epsilon: overlap.log_iou(row.iou, epsilon),
        parameters={"epsilon": Parameter(default=0.01, low=1e-4, high=1.0, meaning="error that counts as none")},
    ),
    Term(
        name="iou_power", axis=1, kind="quality", formula=overlap.iou_power,
        value=lambda row, power: overlap.iou_power(row.iou, power),
        parameters={"power": Parameter(default=2.0, low=0.1, high=16.0, meaning="exponent")},
    ),
)  # fmt: skip

BOUNDARY = (
    Term(
        name="boundary_iou", axis=2, kind="quality", formula=boundary.boundary_iou, value=_boundary_iou,
        parameters={"share": _share(0.02)},
    ),
    Term(
        name="near_boundary_iou", axis=2, kind="quality", formula=boundary.boundary_iou,
        value=lambda row, pixels: boundary.boundary_iou(row.drawn, row.truth, round(pixels)),
        parameters={"pixels": Parameter(default=2, low=1, high=64, meaning="pixels of the raster, rounded")},
    ),
    Term(
        name="least_of_iou_and_boundary", axis=2, kind="quality", formula=boundary.least_of_iou_and_boundary,
        value=lambda row, share: boundary.least_of_iou_and_boundary(row.iou, _boundary_iou(row, share)),
        parameters={"share": _share(0.02)},
    ),
    Term(
        name="boundary_closeness", axis=2, kind="quality", formula=boundary.boundary_closeness,
        value=lambda row, reach: boundary.boundary_closeness(row.drawn, row.truth, _radius(row, reach)),
        parameters={"reach": _share(0.02)},
    ),
)  # fmt: skip

BOX = (
    Term(
        name="box_iou", axis=3, kind="quality", formula=box.box_iou,
        value=lambda row: box.box_iou(row.box, row.true_box),
    ),
    Term(
        name="box_closeness", axis=3, kind="quality", formula=box.box_closeness,
        value=lambda row, reach: box.box_closeness(row.box, row.true_box, reach),
        parameters={
            "reach": Parameter(default=0.1, low=1e-3, high=1.0, meaning="mean distance of the sides that earns nothing")
        },
    ),
    Term(
        name="box_until_good", axis=3, kind="quality", formula=box.box_until_good,
        value=lambda row, good: box.box_until_good(box.box_iou(row.box, row.true_box), row.iou, good),
        parameters={"good": Parameter(default=0.75, low=0.01, high=1.0, meaning="IoU from which on all is earned")},
    ),
)  # fmt: skip


def _cost(default: float, meaning: str) -> Parameter:
    return Parameter(default=default, low=0.0, high=1.0, meaning=meaning)


ANSWER = (
    Term(
        name="validity", axis=4, kind="cost", formula=validity.validity_cost,
        value=lambda row, broken, out_of_budget, empty: validity.validity_cost(
            row.finish, row.draws_nothing & row.has_target, broken, out_of_budget, empty
        ),
        parameters={
            "broken": _cost(1.0, "of text that cannot be read"),
            "out_of_budget": _cost(1.0, "of not having come to an end"),
            "empty": _cost(1.0, "of drawing nothing where there is a target"),
        },
    ),
    Term(
        name="tokens", axis=5, kind="cost", formula=length.token_cost,
        value=lambda row, full, above: length.token_cost(row.length, row.iou, full, above),
        parameters={
            "full": Parameter(default=1000.0, low=1.0, high=1e6, meaning="tokens that cost 1"), "above": _ABOVE,
        },
    ),
    Term(
        name="excess_tokens", axis=5, kind="cost", formula=length.excess_cost,
        value=lambda row, slack, full, above: length.excess_cost(
            row.length, row.reference_length, row.iou, slack, full, above
        ),
        parameters={
            "slack": Parameter(default=1.0, low=0.0, high=100.0, meaning="multiple of the reference that is free"),
            "full": Parameter(default=1.0, low=0.01, high=100.0, meaning="further multiples that cost 1"),
            "above": _ABOVE,
        },
    ),
)  # fmt: skip

TOPOLOGY = (
    Term(
        name="euler", axis=6, kind="quality", formula=topology.euler_agreement,
        value=lambda row: topology.euler_agreement(row.drawn, row.truth),
    ),
    Term(
        name="specks", axis=6, kind="cost", formula=topology.speck_cost,
        value=lambda row, share: topology.speck_cost(row.edges, row.truth, share),
        parameters={
            "share": Parameter(default=0.005, low=0.0, high=1.0, meaning="part of the true area that is a speck")
        },
    ),
    Term(
        name="crossings", axis=6, kind="cost", formula=topology.crossing_cost,
        value=lambda row, full: topology.crossing_cost(row.edges, full),
        parameters={"full": Parameter(default=4.0, low=1.0, high=1e4, meaning="crossings that cost 1")},
    ),
)  # fmt: skip

TERMS: Mapping[str, Term] = {term.name: term for term in (*BASE, *BOUNDARY, *BOX, *ANSWER, *TOPOLOGY)}
"""Every term by name."""
