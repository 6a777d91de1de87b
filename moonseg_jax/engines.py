"""Rollout engines side by side on a mesh: one for each place of `data` x `fsdp`.

Where an engine is one device, engines know nothing of each other (`shard_map`). Where it is several, which share its
heads and experts, all engines are one program that the compiler splits (`vmap` over engines): a `shard_map` that leaves
some axes to the compiler brought down the TPU's (jax 0.10, July 2026).
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from moonseg_jax.axes import ENGINES, EXPERTS

TOGETHER = "engines"
"""Name of the mapped axis where all engines are one program."""
_AXES: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("axes of engines", default=())


def inside_engine() -> bool:
    """Whether what is being traced is one engine's, whose few rows all its devices see."""
    return bool(_AXES.get())


def over_engines(function: Callable[..., Any], mesh: Mesh | None, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """The function, run by every engine on its own rows.

    Args:
      function: of one engine's rows.
      mesh: None runs on one device.
      in_specs: per argument, prefixes of trees of specs: `P()` for what every engine gets whole, `ENGINES` at the
        dimension that rows lie along.
      out_specs: the same of its result; `P()` must be the same of every engine.
    """
    if mesh is None:
        return function
    if math.prod(mesh.shape[name] for name in EXPERTS) == 1:
        return jax.shard_map(
            _within(ENGINES, function), mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )
    engines = math.prod(mesh.shape[name] for name in ENGINES)

    def together(*arguments: Any) -> Any:
        axes_in = jax.tree.map(_row_axis, in_specs, is_leaf=_is_spec)
        axes_out = jax.tree.map(_row_axis, out_specs, is_leaf=_is_spec)
        apart = _broadcast(lambda axis, leaf: _split(leaf, axis, engines), axes_in, arguments)
        mapped = jax.vmap(
            _within((TOGETHER,), function), in_axes=axes_in, out_axes=axes_out, axis_name=TOGETHER,
            spmd_axis_name=ENGINES,
        )  # fmt: skip
        return _broadcast(_join, axes_out, mapped(*apart))

    return together


def sum_over_engines(tree: Any) -> Any:
    """Inside an engine: sums over all of them."""
    return jax.lax.psum(tree, _AXES.get()) if _AXES.get() else tree


def most_of_engines(number: Array) -> Array:
    """Inside an engine: the largest value that any has, where all are one program and must take equally many turns;
    engines of one device each get their own value back."""
    return jax.lax.pmax(number, TOGETHER) if _AXES.get() == (TOGETHER,) else number


def _within(axes: tuple[str, ...], function: Callable[..., Any]) -> Callable[..., Any]:
    def traced(*arguments: Any) -> Any:
        token = _AXES.set(axes)
        try:
            return function(*arguments)
        finally:
            _AXES.reset(token)

    return traced


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, P)


def _row_axis(spec: P) -> int | None:
    return next((axis for axis, names in enumerate(spec) if names is not None), None)


def _broadcast(change: Callable[[int | None, Array], Array], axes: Any, tree: Any) -> Any:
    """Applies a change to every leaf with the axis that a prefix of the tree names for it."""
    flat = jax.api_util.flatten_axes("rows of engines", jax.tree.structure(tree), axes)
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [change(axis, leaf) for axis, leaf in zip(flat, leaves, strict=True)])


def _split(leaf: Array, axis: int | None, engines: int) -> Array:
    if axis is None:
        return leaf
    shape = (*leaf.shape[:axis], engines, leaf.shape[axis] // engines, *leaf.shape[axis + 1 :])
    placed = P(*[None] * axis, ENGINES)
    return jax.lax.with_sharding_constraint(leaf.reshape(shape), placed)


def _join(axis: int | None, leaf: Array) -> Array:
    if axis is None:
        return leaf
    shape = (*leaf.shape[:axis], leaf.shape[axis] * leaf.shape[axis + 1], *leaf.shape[axis + 2 :])
    return jax.lax.with_sharding_constraint(leaf.reshape(shape), P(*[None] * axis, ENGINES))
