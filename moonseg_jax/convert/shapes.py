"""Shapes of our parameters, flat, without allocating them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from moonseg_jax.config import ModelConfig
from moonseg_jax.convert.layouts import Shape, official_shape
from moonseg_jax.convert.names import Path, Place
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.refiner import head_shapes, make_head


@functools.cache
def policy_shapes(config: ModelConfig) -> Mapping[Path, Shape]:
    """Shapes of the policy's leaves."""
    vision = config.vision
    stitch = jnp.zeros((1, 1, vision.grid, vision.grid))
    crops = jnp.zeros((1, 1, vision.crop, vision.crop, 3), jnp.uint8)
    prompt = (jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1, 2)), jnp.ones((1,), jnp.int32))
    variables = jax.eval_shape(Moondream(config).init, jax.random.key(0), crops, stitch, stitch, *prompt)
    return _flat(variables["params"])


@functools.cache
def refiner_shapes(config: ModelConfig) -> Mapping[Path, Shape]:
    """Shapes of the refinement head's leaves."""
    return _flat(head_shapes(make_head(config), config.vision.width))


def expected_shapes(places: Iterable[Place], leaves: Mapping[Path, Shape]) -> Iterator[tuple[Place, Shape]]:
    """Every place with the shape of its official tensor.

    Args:
      places: of the official tensors.
      leaves: shapes of our leaves, stacks included.
    """
    for place in places:
        leaf = leaves[place.paths[0]]
        first, *rest = official_shape(place.layout, leaf if place.layer is None else leaf[1:])
        yield place, (first * len(place.paths), *rest)


def _flat(tree: Any) -> Mapping[Path, Shape]:
    return MappingProxyType({path: leaf.shape for path, leaf in flatten_dict(tree).items()})
