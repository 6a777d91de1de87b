"""Splitting a batch for gradient accumulation: less memory, the same step.

Image i goes to micro-batch i modulo their number, and everything of an image goes with it. A batch that lies on a
mesh by images is then split without moving anything, as long as every device has a multiple of that number.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from moonseg_jax.types import Rollouts


def split_rows(tree: Any, images: int, count: int, *, axis: int = 0) -> Any:
    """Leaves whose `axis` holds the rows of all images, one image after the other, to `count` micro-batches.

    Args:
      tree: arrays `[…, images * r, …]`, each with an r of its own.
      images: how many there are, a multiple of `count`.
      count: micro-batches.
      axis: of the rows.

    Returns:
      arrays `[count, …, images / count * r, …]`.
    """

    def split(leaf: Array) -> Array:
        before, after = leaf.shape[:axis], leaf.shape[axis + 1 :]
        rows = leaf.shape[axis] // images
        apart = jnp.reshape(leaf, (*before, images // count, count, rows, *after))
        return jnp.moveaxis(apart, axis + 1, 0).reshape(count, *before, images // count * rows, *after)

    return jax.tree.map(split, tree)


def joined_rows(parts: Array, images: int) -> Array:
    """`[count, images / count * r, …]` back to `[images * r, …]`, in the order of before."""
    count, rows = parts.shape[0], parts.shape[0] * parts.shape[1] // images
    apart = parts.reshape(count, images // count, rows, *parts.shape[2:])
    return jnp.moveaxis(apart, 0, 1).reshape(images * rows, *parts.shape[2:])


def split_rollouts(rollouts: Rollouts, images: int, count: int) -> Rollouts:
    """Rollouts to micro-batches; the experts to replay have their layers first."""
    rows = split_rows(dataclasses.replace(rollouts, experts=None), images, count)
    return dataclasses.replace(rows, experts=split_rows(rollouts.experts, images, count, axis=1))
