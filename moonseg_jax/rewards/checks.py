"""Checks of what users write in a reward."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

from moonseg_jax.config import ConfigError


def finite_number(value: Any, what: str) -> float:
    """The value, if it is a finite number.

    Raises:
      ConfigError: it is none; says what it was meant to be.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ConfigError(f"reward: {what} is {value!r}; it must be a finite number")
    return float(value)


def nearest(name: Any, known: Iterable[str]) -> str:
    """A remedy for a misspelt name: the most similar one, and all there are."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    listed = f"known: {', '.join(names)}" if names else "it has none"
    return f"did you mean {close[0]!r}? ({listed})" if close else listed
