"""How benchmarks take time: the fastest of several calls after a first one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
    """The least seconds over the repeats, and the last result."""

    wall: float
    """Of the clock."""
    cpu: float
    """Of all threads; what stays comparable where others share the machine."""
    result: Any


def fastest(action: Callable[[], Any], repeats: int, *, warm_up: bool = True) -> Timed:
    """Calls `repeats` times, at least once, after a first call that compiles; the action must wait for its result.

    Args:
      action: what is timed.
      repeats: calls that count.
      warm_up: whether to make the first call, which does not.
    """
    if warm_up:
        action()
    walls, cpus = [], []
    for _ in range(max(repeats, 1)):
        wall, cpu = time.perf_counter(), time.process_time()
        result = action()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Timed(wall=min(walls), cpu=min(cpus), result=result)
