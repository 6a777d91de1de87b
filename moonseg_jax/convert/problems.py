"""Everything that is wrong with a checkpoint's tensors, told at once and by their official names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from moonseg_jax.convert.layouts import Shape
from moonseg_jax.convert.names import Place
from moonseg_jax.errors import UserError

STORAGE = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
"""Types a weight may be stored in; FP8 counts as float32 once it has its scales."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problems:
    """What does not fit, each list by official name."""

    missing: Mapping[str, Shape]
    """Tensors that are not there → the shape they should have."""
    unexpected: Mapping[str, Shape]
    """Tensors that are no part of the model → the shape they have."""
    wrong_shape: Mapping[str, tuple[Shape, Shape]]
    """→ (expected, found)."""
    wrong_dtype: Mapping[str, str]
    """→ the dtype found."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.wrong_shape or self.wrong_dtype)

    def lines(self) -> list[str]:
        """One line per problem."""
        return [
            *(f"missing: {name}, expected shape {list(shape)}" for name, shape in self.missing.items()),
            *(f"unexpected: {name}, found shape {list(shape)}" for name, shape in self.unexpected.items()),
            *(
                f"wrong shape: {name}, expected {list(expected)}, found {list(found)}"
                for name, (expected, found) in self.wrong_shape.items()
            ),
            *(
                f"wrong dtype: {name} is {dtype}; known are float32, bfloat16, float16, and FP8 with scales"
                for name, dtype in self.wrong_dtype.items()
            ),
        ]

    def as_json(self) -> dict[str, Any]:
        """For reports."""
        return {
            "missing": {name: list(shape) for name, shape in self.missing.items()},
            "unexpected": {name: list(shape) for name, shape in self.unexpected.items()},
            "wrong_shape": {
                name: {"expected": list(expected), "found": list(found)}
                for name, (expected, found) in self.wrong_shape.items()
            },
            "wrong_dtype": dict(self.wrong_dtype),
        }


class TensorsDoNotFit(UserError):
    """Missing, unexpected or misshapen tensors, or values that are no numbers; `problems` lists them."""

    def __init__(self, message: str, problems: dict[str, Any]):
        super().__init__(message)
        self.problems = problems


def compare(expected: Iterable[tuple[Place, Shape]], found: Mapping[str, tuple[np.dtype, Shape]]) -> Problems:
    """What keeps the tensors of a checkpoint from being the model's.

    Args:
      expected: places and shapes of the model.
      found: dtype and shape by official name.
    """
    shapes = {place.name: shape for place, shape in expected}
    both = [name for name in shapes if name in found]
    return Problems(
        missing={name: shape for name, shape in shapes.items() if name not in found},
        unexpected={name: shape for name, (_, shape) in found.items() if name not in shapes},
        wrong_shape={name: (shapes[name], found[name][1]) for name in both if found[name][1] != shapes[name]},
        wrong_dtype={name: str(found[name][0]) for name in both if found[name][0] not in STORAGE},
    )


def refuse(problems: Problems, where: str) -> None:
    """Raises an error that lists all problems.

    Raises:
      TensorsDoNotFit: there is at least one.
    """
    if problems:
        lines = problems.lines()
        listed = "\n  ".join(lines)
        raise TensorsDoNotFit(
            f"{where} does not fit the model (other sizes? then name their config.json with --config); wrong "
            f"tensors: {len(lines)}\n  {listed}",
            problems.as_json(),
        )


def refuse_not_finite(names: list[str], where: str) -> None:
    """Raises an error that names the tensors with NaN or infinite values.

    Raises:
      TensorsDoNotFit: there is at least one.
    """
    if names:
        listed = "\n  ".join(names)
        raise TensorsDoNotFit(f"{where} has NaN or infinite values in:\n  {listed}", {"not_finite": names})
