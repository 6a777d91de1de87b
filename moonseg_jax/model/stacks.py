"""How stacks of equal layers run: short ones side by side, long ones as a loop."""

from __future__ import annotations

LONGEST_UNROLLED = 4
"""A scan copies its carry and its slices of the parameters: a quarter of a training step at tiny size on a CPU.
Longer stacks stay a loop, which compiles in the time of one layer."""


def unrolled(layers: int) -> int:
    """How many layers of a stack one turn of its scan runs."""
    return layers if 0 < layers <= LONGEST_UNROLLED else 1
