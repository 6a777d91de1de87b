"""Means over seeds and tests of differences paired by seed: functions of a few numbers, on the host."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

SIGN_FLIPS_FROM, SIGN_FLIPS_UP_TO = 5, 20
"""Pairs from which on sign flips say anything (fewer than 5 cannot reach p = .1), and up to which all are counted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds."""

    n: int
    mean: float
    standard_error: float | None
    """Standard deviation (divided by n - 1) over √n; None for a single value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Whether differences paired by seed are other than 0."""

    n: int
    mean: float
    standard_error: float | None
    t_p: float | None
    """Two-sided p of the paired t-test; None for one pair, or where the differences are equal and not 0."""
    sign_flip_p: float | None
    """Two-sided p of all 2^n flips of signs; None outside `SIGN_FLIPS_FROM` to `SIGN_FLIPS_UP_TO` pairs."""
    t_p_holm: float | None = None
    """`t_p` corrected by `with_holm`."""
    sign_flip_p_holm: float | None = None


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Mean and standard error.

    Raises:
      ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    n, spread = len(values), (float(np.std(values, ddof=1)) if len(values) > 1 else None)
    return Mean(n=n, mean=float(np.mean(values)), standard_error=None if spread is None else spread / math.sqrt(n))


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Tests differences, one per seed, against 0; values that differ by rounding only count as equal.

    Raises:
      ValueError: there are no differences.
    """
    over_seeds = mean_over_seeds(differences)
    error = over_seeds.standard_error
    rounding = 1e-12 * (1.0 + abs(over_seeds.mean))
    if error is None:
        t_p = None
    elif error > rounding:
        t_p = student_p(over_seeds.mean / error, over_seeds.n - 1)
    else:
        t_p = 1.0 if abs(over_seeds.mean) <= rounding else None
    return PairedTest(
        n=over_seeds.n, mean=over_seeds.mean, standard_error=error, t_p=t_p, sign_flip_p=sign_flip_p(differences)
    )


def student_p(t: float, freedom: int) -> float:
    """Two-sided p of Student's t for whole degrees of freedom: the finite sums 26.7.3 and 26.7.4 of Abramowitz and
    Stegun.

    Raises:
      ValueError: less than one degree of freedom.
    """
    if freedom < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {freedom}")
    angle = math.atan(abs(t) / math.sqrt(freedom))
    odd = freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    within = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return min(max(1.0 - within, 0.0), 1.0)


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Share of all 2^n choices of signs whose sum lies as far from 0 as the observed one (Fisher 1935); None outside
    `SIGN_FLIPS_FROM` to `SIGN_FLIPS_UP_TO` pairs."""
    if not SIGN_FLIPS_FROM <= len(differences) <= SIGN_FLIPS_UP_TO:
        return None
    # The first sign stays: turning all of them round does not change the distance from 0.
    sums = np.array([differences[0]], float)
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    observed = abs(float(np.sum(differences)))
    rounding = 1e-12 * (1.0 + float(np.sum(np.abs(differences))))
    return float(np.mean(np.abs(sums) >= observed - rounding))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """p-values corrected for testing several arms (Holm 1979); what has no p keeps none and is not counted.

    The k-th smallest of m, from 0, is multiplied by m - k; none falls below a smaller one's, or above 1.
    """
    present = sorted((p, name) for name, p in p_values.items() if p is not None)
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for k, (p, name) in enumerate(present):
        largest = max(largest, min(1.0, p * (len(present) - k)))
        corrected[name] = largest
    return corrected


def with_holm(tests: Mapping[str, PairedTest]) -> dict[str, PairedTest]:
    """The tests of several arms on one figure, with both p-values corrected over the arms."""
    t_p = holm({arm: test.t_p for arm, test in tests.items()})
    flips = holm({arm: test.sign_flip_p for arm, test in tests.items()})
    return {
        arm: dataclasses.replace(test, t_p_holm=t_p[arm], sign_flip_p_holm=flips[arm]) for arm, test in tests.items()
    }
