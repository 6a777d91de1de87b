"""Where arrays lie on a mesh: partition rules by parameter path, and constraints on activations.

The rules name the last dimensions of a parameter; stacks of layers have one more in front, which is never split. A
dimension that its axes do not divide is left whole, and `WEIGHTS` then take the largest other one that they divide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from moonseg_jax.axes import EXPERTS, FSDP, ROWS, TENSOR, WEIGHTS
from moonseg_jax.engines import inside_engine

Tree = TypeVar("Tree")
Split = str | tuple[str, ...] | None
"""The axes that one dimension is split over."""

Rules = tuple[tuple[str, tuple[Split, ...]], ...]

RULES: Rules = (
    (r"(^|/)refiner/", ()),
    (r"moe/(up|down)(_factors)?/lora_a$", (EXPERTS, FSDP, None)),
    (r"moe/(up|down)(_factors)?/lora_b$", (EXPERTS, None, FSDP)),
    (r"lora_a$", (WEIGHTS, None)),
    (r"lora_b$", (None, WEIGHTS)),
    (r"embedding/embedding$", (TENSOR, WEIGHTS)),
    (r"vision/position$", (None, WEIGHTS)),
    (r"moe/(up|down)$", (EXPERTS, FSDP, None)),
    (r"router/kernel$", (WEIGHTS, None)),
    (r"tau_[qv]$", (WEIGHTS, None)),
    (r"(attn/proj|blocks/proj|fc2|projection_fc2)/kernel$", (TENSOR, WEIGHTS)),
    (r"kernel$", (WEIGHTS, TENSOR)),
    (r"", ()),
)
"""Path of a parameter → splits of its last dimensions; the first rule that fits holds. The refinement
head, 20 MiB, lies whole everywhere."""

_USED_RULES = tuple((pattern, tuple(None if s == WEIGHTS else s for s in splits)) for pattern, splits in RULES)

SMALLEST_SPLIT = 2**16
"""Entries of the smallest parameter that is split: below it, gathering costs more than holding."""


def partition_spec(path: str, shape: Sequence[int], sizes: Mapping[str, int], rules: Rules = RULES) -> P:
    """How a parameter is split.

    Args:
      path: its names, joined by slashes; what comes before them (the optimizer's moments have a prefix) is ignored.
      shape: of the parameter, stacked layers first.
      sizes: axes of the mesh and how many devices each has.
      rules: the first one that fits holds.
    """
    if math.prod(shape) < SMALLEST_SPLIT:
        return P()
    splits = next(splits for pattern, splits in rules if re.search(pattern, path))
    wanted: list[Split] = [None] * (len(shape) - len(splits)) + list(splits)
    found = [_that_divide(axes, length, sizes) for axes, length in zip(wanted, shape, strict=True)]
    if WEIGHTS in wanted and found[wanted.index(WEIGHTS)] is None:
        own = range(len(shape) - len(splits), len(shape))
        free = sorted((i for i in own if found[i] is None), key=lambda i: -shape[i])
        for place in free[:1]:
            found[place] = _that_divide(WEIGHTS, shape[place], sizes)
    return P(*found) if any(found) else P()


def _that_divide(axes: Split, length: int, sizes: Mapping[str, int]) -> Split:
    """The given axes, or as many of the first ones as divide a dimension together."""
    names = tuple(name for name in ((axes,) if isinstance(axes, str) else axes or ()) if sizes.get(name, 1) > 1)
    while names and length % math.prod(sizes[name] for name in names):
        names = names[:-1]
    return names[0] if len(names) == 1 else names or None


def partition_specs(tree: Any, sizes: Mapping[str, int]) -> Any:
    """The spec of every leaf of parameters, or of what is built like them: averages, gradients, optimizer states."""

    def of_leaf(path: tuple[Any, ...], leaf: Any) -> P:
        return partition_spec(path_of(path), leaf.shape, sizes)

    return jax.tree_util.tree_map_with_path(of_leaf, tree)


def gathered_parameters(tree: Tree, dtype: jnp.dtype) -> Tree:
    """Inside jit: the parameters as layers use them, split over `tensor`, experts over theirs, and whole otherwise.

    For loops that would gather them again at every turn. Large matrices are cast first, as their layers would cast
    them: half the bytes to exchange and to hold in bfloat16.

    Args:
      tree: the policy's.
      dtype: that the model computes in.
    """
    sizes = _auto_sizes()
    if math.prod(sizes.values()) == 1:
        return tree

    def gathered(path: tuple[Any, ...], leaf: Array) -> Array:
        spec = partition_spec(path_of(path), leaf.shape, {**sizes, FSDP: 1}, _USED_RULES)
        kept = math.prod(leaf.shape) < SMALLEST_SPLIT or leaf.ndim < 2
        return jax.lax.with_sharding_constraint(leaf if kept else leaf.astype(dtype), spec)

    return jax.tree_util.tree_map_with_path(gathered, tree)


def path_of(path: tuple[Any, ...]) -> str:
    """Names of the dictionaries on the way to a leaf, joined by slashes."""
    return "/".join(part.key for part in path if isinstance(part, jax.tree_util.DictKey))


def split_parameters(tree: Tree) -> Tree:
    """Inside jit: keeps parameters, or what is built like them, where the rules put them on the mesh in use.

    Without it the compiler chooses: gradients would be summed whole on every device, and new parameters might lie
    elsewhere than old ones, which compiles every program once more.
    """
    sizes = _auto_sizes()
    if math.prod(sizes.values()) == 1:
        return tree
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, partition_specs(tree, sizes))


def split_rows(rows: Array) -> Array:
    """Inside jit: splits the first dimension over the batch axes of the mesh in use, where they divide it; the rest
    lies whole on every device.

    Without it the compiler may move activations to the parameters of FSDP instead of parameters to activations.
    """
    return _constrained(rows, {0: _row_axes()})


def split_heads(heads: Array, axis: int) -> Array:
    """Inside jit: splits the rows, which come first, and the heads, which lie along `axis`.

    Queries, keys and values lie one behind the other in one product, so that its parts are not those of heads.
    """
    return _constrained(heads, {0: _row_axes(), axis: TENSOR})


def split_as(array: Array, splits: Sequence[Split]) -> Array:
    """Inside jit: splits the dimensions over these axes, where they divide them; along others it lies whole."""
    return _constrained(array, dict(enumerate(splits)))


def whole(tree: Tree) -> Tree:
    """Inside jit: arrays that lie whole on every device of the mesh in use; inside an engine, on every one of its."""
    return jax.tree.map(lambda array: _constrained(array, {}), tree)


def _constrained(array: Array, wanted: Mapping[int, Split]) -> Array:
    """The array, split along some dimensions as far as the axes divide them, and whole along the others."""
    sizes = _auto_sizes()
    if math.prod(sizes.values()) == 1:
        return array
    splits = [_that_divide(wanted.get(i), length, sizes) for i, length in enumerate(array.shape)]
    return jax.lax.with_sharding_constraint(array, P(*splits))


def axes_of_rows(count: int) -> tuple[str, ...]:
    """Inside jit: the axes of the mesh in use that rows are split over, as many as divide their number."""
    return _as_tuple(_that_divide(_row_axes(), count, _auto_sizes()))


def axes_of_experts(count: int) -> tuple[str, ...]:
    """Inside jit: the axes of the mesh in use that experts are split over, as many as divide their number."""
    return _as_tuple(_that_divide(EXPERTS, count, _auto_sizes()))


def _as_tuple(axes: Split) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else axes or ()


def _row_axes() -> tuple[str, ...]:
    """Axes that rows are split over; none inside a rollout engine, whose devices all see its few rows."""
    return () if inside_engine() else ROWS


def _auto_sizes() -> dict[str, int]:
    """Axes of the mesh in use that the compiler may still split over, and their sizes."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return {}
    kinds = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    return {name: size for name, size, kind in kinds if kind == AxisType.Auto}
