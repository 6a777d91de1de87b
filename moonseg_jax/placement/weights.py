"""How a policy's weights lie where they are learned and where they sample, and in which pieces they travel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from moonseg_jax import partition

LARGE = 2**26
"""Bytes of a matrix above which a stack of them travels layer by layer."""
STACKED = 3
"""Dimensions of the smallest stack of matrices."""


class Weight(NamedTuple):
    """One parameter on its way; shapes and dtypes as it arrives."""

    shape: tuple[int, ...]
    dtype: jnp.dtype
    learner: P
    """How it lies on the learner's mesh."""
    sampler: P
    """How it lies on the sampler's."""
    layers: int
    """Pieces that it travels in, along its first dimension; 0 travels whole."""

    @property
    def bytes(self) -> int:
        """Of the whole parameter."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def piece(self) -> tuple[int, ...]:
        """Shape of what travels at once."""
        return self.shape[1:] if self.layers else self.shape

    def specs_of_piece(self) -> tuple[P, P]:
        """How a piece lies on the learner's and on the sampler's mesh."""
        return (P(*self.learner[1:]), P(*self.sampler[1:])) if self.layers else (self.learner, self.sampler)


def travelling_weights(shapes: Any, learner: Mesh, sampler: Mesh, dtype: Any) -> list[Weight]:
    """All parameters in the order of the tree's leaves.

    Large matrices travel in the dtype that samples, as `partition.gathered_parameters` casts them; norms, biases and
    what is small keep theirs.

    Args:
      shapes: of the parameters.
      learner: mesh they come from.
      sampler: mesh they go to.
      dtype: of the weights that sample.
    """
    here, there = (
        jax.tree.leaves(partition.partition_specs(shapes, dict(mesh.shape)), is_leaf=_is_spec)
        for mesh in (learner, sampler)
    )
    return list(_weights(jax.tree.leaves(shapes), here, there, jnp.dtype(dtype)))


def in_loads(weights: Sequence[Weight]) -> Iterator[list[int]]:
    """Numbers of weights that travel in one program: those in layers alone, others as many as `LARGE` holds."""
    load, held = list[int](), 0
    for number, weight in enumerate(weights):
        if load and (weight.layers or held + weight.bytes > LARGE):
            yield load
            load, held = [], 0
        if weight.layers:
            yield [number]
        else:
            load.append(number)
            held += weight.bytes
    if load:
        yield load


def as_they_arrive(shapes: Any, dtype: Any) -> Any:
    """Shapes of parameters with the dtypes that sample; see `travelling_weights`."""
    arriving = jnp.dtype(dtype)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, _arrives(leaf, arriving)), shapes)


def _arrives(leaf: Any, dtype: jnp.dtype) -> jnp.dtype:
    is_large = math.prod(leaf.shape) >= partition.SMALLEST_SPLIT and leaf.ndim > 1
    return dtype if is_large else leaf.dtype


def _weights(leaves: list[Any], learner: list[P], sampler: list[P], dtype: jnp.dtype) -> Iterator[Weight]:
    for leaf, here, there in zip(leaves, learner, sampler, strict=True):
        arrives = _arrives(leaf, dtype)
        stacked = leaf.ndim >= STACKED and math.prod(leaf.shape) * arrives.itemsize > LARGE
        yield Weight(tuple(leaf.shape), arrives, here, there, leaf.shape[0] if stacked else 0)


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, P)
