"""One term of a reward: its weight, possibly a schedule over steps, and its parameters."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from moonseg_jax.config import ConfigError
from moonseg_jax.rewards.checks import finite_number, nearest
from moonseg_jax.rewards.terms import TERMS, Term

Schedule = tuple[tuple[int, float], ...]
"""(step, weight) points: linear between them, constant before the first and after the last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightedTerm:
    """One term of a reward."""

    term: str
    """A name of `terms.TERMS`."""
    weight: float | Schedule = 1.0
    """A number, or a schedule over steps. Costs are negative already: their weights are not."""
    parameters: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    """What differs from the term's defaults."""

    def __post_init__(self) -> None:
        """Refuses what the term does not know.

        Raises:
          ConfigError: unknown term or parameter (the nearest is named), a value that is no number or out of bounds,
            or a schedule that is empty, has a step below 0, or does not increase.
        """
        if not isinstance(self.term, str) or self.term not in TERMS:
            raise ConfigError(f"reward: no term {self.term!r}; {nearest(self.term, TERMS)}")
        if not isinstance(self.parameters, Mapping):
            raise ConfigError(f"reward: the parameters of {self.term} must be named, such as {{'share': 0.02}}")
        known, parameters = TERMS[self.term].parameters, {}
        for name, value in self.parameters.items():
            if name not in known:
                raise ConfigError(f"reward: {self.term} has no parameter {name!r}; {nearest(name, known)}")
            number, bounds = finite_number(value, f"{self.term}.{name}"), known[name]
            if not bounds.low <= number <= bounds.high:
                raise ConfigError(
                    f"reward: {self.term}.{name} is {number:g}; it must lie in {bounds.low:g}..{bounds.high:g} "
                    f"({bounds.meaning})"
                )
            parameters[name] = number
        object.__setattr__(self, "parameters", parameters)
        if isinstance(self.weight, Sequence) and not isinstance(self.weight, str):
            object.__setattr__(self, "weight", _schedule(self.weight, self.term))
        else:
            object.__setattr__(self, "weight", finite_number(self.weight, f"the weight of {self.term}"))

    @property
    def definition(self) -> Term:
        """The term's row of the table."""
        return TERMS[self.term]

    @property
    def label(self) -> str:
        """The term's name, with its parameters where they differ from the defaults: `boundary_iou(share=0.005)`."""
        defaults = self.definition.parameters
        changed = [
            f"{name}={value}" for name, value in sorted(self.parameters.items()) if value != defaults[name].default
        ]
        return f"{self.term}({', '.join(changed)})" if changed else self.term

    @property
    def all_parameters(self) -> dict[str, float]:
        """Defaults, and what differs from them."""
        return {name: one.default for name, one in self.definition.parameters.items()} | dict(self.parameters)

    @property
    def schedule(self) -> Schedule:
        """The weight as points; a constant is one point."""
        return self.weight if isinstance(self.weight, tuple) else ((0, self.weight),)

    def weight_at(self, step: int) -> float:
        """The weight at a step, on the host."""
        points = self.schedule
        for (start, low), (end, high) in itertools.pairwise(points):
            if step < end:
                return low + (high - low) * max(step - start, 0) / (end - start)
        return points[-1][1]


def _schedule(points: Sequence[Any], term: str) -> Schedule:
    if not points or not all(isinstance(point, Sequence) and len(point) == 2 for point in points):
        raise ConfigError(f"reward: the schedule of {term} must be (step, weight) pairs such as ((0, 0.0), (500, 1.0))")
    steps = [finite_number(point[0], f"a step of {term}'s schedule") for point in points]
    if steps[0] < 0 or any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ConfigError(f"reward: the schedule of {term} has steps {steps}; they must increase, from 0 or more")
    if any(step != int(step) for step in steps):
        raise ConfigError(f"reward: the schedule of {term} has steps {steps}; they must be whole")
    weights = [finite_number(point[1], f"a weight of {term}'s schedule") for point in points]
    return tuple(zip(map(int, steps), weights))
