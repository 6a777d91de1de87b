"""How stacks of equal layers run: short ones side by side, long ones as a loop; what is kept of them for gradients."""

from __future__ import annotations

from typing import Literal

import jax
from flax import linen as nn

LONGEST_UNROLLED = 4
"""A scan copies its carry and its slices of the parameters: a quarter of a training step at tiny size on a CPU.
Longer stacks stay a loop, which compiles in the time of one layer."""

Remat = Literal["none", "blocks", "dots"]
"""What the backward pass computes again: nothing; all of a block but its input; all but a block's products of
activations with weights."""


def unrolled(layers: int) -> int:
    """How many layers of a stack one turn of its scan runs."""
    return layers if 0 < layers <= LONGEST_UNROLLED else 1


def rematerialised(block: type[nn.Module], remat: Remat) -> type[nn.Module]:
    """The block as the backward pass shall see it."""
    if remat == "none":
        return block
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remat == "dots" else None
    return nn.remat(block, prevent_cse=False, policy=policy)
