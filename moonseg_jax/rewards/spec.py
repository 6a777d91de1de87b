"""Reward shapes as data: terms with weights, how they are combined, and how weights change over the steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from moonseg_jax.config import ConfigError
from moonseg_jax.rewards.checks import finite_number, nearest
from moonseg_jax.rewards.weighted_term import WeightedTerm

Combination = Literal["sum", "product", "min", "gated"]
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)

CANCELLED = 0.01
"""Weights that sum to less than this share of their absolute sum cancel."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardSpec:
    """A reward shape. With weight w of each term t at the current step:

    `sum`: sum of w t. `product`: over qualities of t^w, times, over costs, max(1 + w t, 0). `min`: the least
    over qualities of 1 - w (1 - t), plus the sum of w t over costs. `gated`: the sum over terms of axis 1, plus, only
    where the raw IoU reaches `gate`, the sum over the others.

    Whatever the shape, a phrase without target earns 1 for an empty mask and 0 for any other (see `reward`).
    """

    terms: tuple[WeightedTerm, ...]
    combination: Combination = "sum"
    gate: float | None = None
    """Raw IoU that opens the gate; for `gated` only."""

    def __post_init__(self) -> None:
        """Refuses shapes that pay for nothing, or for what is wrong.

        Raises:
          ConfigError: no terms, a term twice, an unknown combination, weights that cancel or are all zero at some
            step, a negative weight where it cannot be meant, a gate that is missing, idle or out of (0, 1).
        """
        if not isinstance(self.terms, Sequence) or not all(isinstance(one, WeightedTerm) for one in self.terms):
            raise ConfigError("reward: terms must be WeightedTerms; RewardSpec.from_data reads plain names and numbers")
        if not self.terms:
            raise ConfigError("reward: there are no terms; a plain one is WeightedTerm(term='iou')")
        object.__setattr__(self, "terms", tuple(self.terms))
        labels = [one.label for one in self.terms]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ConfigError(f"reward: {', '.join(twice)} stands there twice; name it once, with the sum of weights")
        if self.combination not in COMBINATIONS:
            raise ConfigError(f"reward: no combination {self.combination!r}; {nearest(self.combination, COMBINATIONS)}")
        self._check_gate()
        for step in self.breakpoints:
            self._check_weights(step)

    @property
    def breakpoints(self) -> tuple[int, ...]:
        """Steps at which some schedule bends: what holds at all of them holds between."""
        return tuple(sorted({step for one in self.terms for step, _ in one.schedule}))

    def as_data(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, as JSON has them."""
        terms = [
            {
                "term": one.term,
                "weight": [list(point) for point in one.weight] if isinstance(one.weight, tuple) else one.weight,
                "parameters": dict(one.parameters),
            }
            for one in self.terms
        ]
        return {"terms": terms, "combination": self.combination, "gate": self.gate}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> RewardSpec:
        """Reads what `as_data` gives, or a part of it: only `terms` and their names are needed.

        Raises:
          ConfigError: a field that does not exist or has the wrong kind, and see `WeightedTerm` and `RewardSpec`.
        """
        _check_fields(data, RewardSpec, "reward")
        if not isinstance(data.get("terms"), Sequence) or isinstance(data["terms"], str):
            raise ConfigError("reward: terms must be a list like [{'term': 'iou', 'weight': 1.0}]")
        for number, one in enumerate(data["terms"]):
            _check_fields(one, WeightedTerm, f"reward: terms[{number}]")
            if "term" not in one:
                raise ConfigError(f"reward: terms[{number}] has no name; say {{'term': 'iou'}}")
        return cls(**{**data, "terms": tuple(WeightedTerm(**one) for one in data["terms"])})

    def _check_gate(self) -> None:
        if self.combination != "gated":
            if self.gate is not None:
                raise ConfigError(
                    f"reward: gate is {self.gate}, and a {self.combination} has none; leave it out, or combine 'gated'"
                )
            return
        if self.gate is None or not 0.0 < finite_number(self.gate, "gate") < 1.0:
            raise ConfigError(
                f"reward: gate is {self.gate}; a gated reward needs a raw IoU between 0 and 1, such as 0.5"
            )
        if all(one.definition.axis == 1 for one in self.terms):
            raise ConfigError("reward: all terms are of the base, so that the gate has nothing to hold back; use 'sum'")

    def _check_weights(self, step: int) -> None:
        weights = {one.label: one.weight_at(step) for one in self.terms}
        at = f" at step {step}" if len(self.breakpoints) > 1 else ""
        for one in self.terms:
            weight, is_cost = weights[one.label], one.definition.kind == "cost"
            if is_cost and weight < 0:
                raise ConfigError(
                    f"reward: the weight of {one.label} is {weight:g}{at}, which pays for what should cost: values of "
                    f"this term are negative already; use {-weight:g}"
                )
            if self.combination in ("product", "min") and weight < 0:
                raise ConfigError(
                    f"reward: the weight of {one.label} is {weight:g}{at}; a {self.combination} needs 0 or more"
                )
            if self.combination == "min" and not is_cost and weight > 1:
                raise ConfigError(f"reward: the weight of {one.label} is {weight:g}{at}; a min needs weights up to 1")
        base = {one.label: weights[one.label] for one in self.terms if one.definition.axis == 1}
        qualities = {one.label: weights[one.label] for one in self.terms if one.definition.kind == "quality"}
        if self.combination == "gated":
            _check_net(base, f"base terms (axis 1), which alone count below the gate,{at}")
        else:
            _check_net(qualities, f"qualities{at}")
        if any(base.values()):
            _check_net(base, f"base terms (axis 1){at}")


def _check_net(weights: Mapping[str, float], of_what: str) -> None:
    net, absolute = sum(weights.values()), sum(map(abs, weights.values()))
    if absolute == 0:
        raise ConfigError(f"reward: the weights of {of_what} are all zero: no mask earns more than another")
    if net < CANCELLED * absolute:
        listed = ", ".join(f"{label} {weight:g}" for label, weight in weights.items())
        raise ConfigError(f"reward: the weights of {of_what} cancel ({listed}); their sum must be above 0")


def _check_fields(data: Any, fields_of: type, where: str) -> None:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} must be a table of fields, but is a {type(data).__name__}")
    known = [field.name for field in dataclasses.fields(fields_of)]
    for name in data:
        if name not in known:
            raise ConfigError(f"{where} has no field {name!r}; {nearest(str(name), known)}")
