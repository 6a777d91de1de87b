"""Weights and experience between whole hosts: some only learn, the others only sample.

Learners and groups of samplers are slices of one mesh with a leading axis `role`. What one slice has and the others
need is an array with that axis, of zeros where there is nothing to give: a sum over roles brings weights to all, and
the rows of all groups of samplers are joined for the learners. Everybody enters these programs at the same places of a
step, in the same order; between them, each works on its own slice alone.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moonseg_jax.axes import ROWS
from moonseg_jax.placement.experience import Experience, row_axes
from moonseg_jax.placement.roles import Roles, devices_of
from moonseg_jax.placement.weights import Weight, in_loads, travelling_weights
from moonseg_jax.processes import wait_for_all

ROLE = "role"
"""The leading axis: learners first, then the groups of samplers."""


class BetweenHosts:
    """The exchange of a placement in which whole processes learn or sample."""

    def __init__(self, roles: Roles, shapes: Any, dtype: Any, images: int):
        """Plans the way of the weights.

        Args:
          roles: who learns, who samples.
          shapes: of the policy's parameters.
          dtype: of the weights that sample.
          images: of a batch, over all groups.
        """
        self._roles, self._images = roles, images
        self._structure = jax.tree.structure(shapes)
        self._weights = travelling_weights(shapes, roles.learner, roles.sampler, dtype)
        slices = [roles.learner.devices] + [
            np.array(devices_of(group)).reshape(roles.learner.devices.shape) for group in roles.groups
        ]
        names = (ROLE, *roles.learner.axis_names)
        self._mesh = Mesh(np.stack(slices), names, axis_types=(AxisType.Auto,) * len(names))
        own = slices[0] if roles.learns else slices[1 + roles.group]
        self._own = Mesh(own, names[1:], axis_types=(AxisType.Auto,) * (len(names) - 1))
        self._meetings = 0

    @property
    def bytes(self) -> int:
        """Of all weights once, as they travel."""
        return sum(weight.bytes for weight in self._weights)

    def weights(self, params: Any | None) -> Any:
        """Hands the learners' parameters to all who sample; at no time does a device hold more than its part of a
        piece beside its own weights. Everybody must call it.

        Args:
          params: on the learner's mesh; None of who samples.

        Returns:
          Parameters on the sampler's mesh; None for who learns.
        """
        self._meet()
        leaves = [None] * len(self._weights) if params is None else jax.tree.leaves(params)
        arrived: list[Any] = [None] * len(leaves)
        for load in in_loads(self._weights):
            weights = [self._weights[number] for number in load]
            given = None if params is None else [leaves[number] for number in load]
            moved = self._in_layers(given, weights[0]) if weights[0].layers else self._whole(given, weights)
            for number, leaf in zip(load, moved or [], strict=params is None):
                arrived[number] = leaf
        return None if self._roles.learns else jax.tree.unflatten(self._structure, arrived)

    def _whole(self, leaves: list[Any] | None, weights: list[Weight]) -> list[jax.Array] | None:
        sent = None
        if leaves is not None:
            sent = _cast(self._roles.learner, *_specs_and_dtypes(weights))(leaves)
        pieces = self._for_all_roles(sent, weights)
        if self._roles.learns:
            return None
        targets = [NamedSharding(self._roles.sampler, weight.sampler) for weight in weights]
        return list(jax.jit(_same, out_shardings=targets)(pieces))

    def _in_layers(self, leaves: list[Any] | None, weight: Weight) -> list[jax.Array] | None:
        target = NamedSharding(self._roles.sampler, weight.sampler)
        stack = None if self._roles.learns else jnp.zeros(weight.shape, weight.dtype, device=target)
        specs, dtypes = _specs_and_dtypes([weight])
        for layer in range(weight.layers):
            sent = None if leaves is None else _cast_layer(self._roles.learner, specs[0], dtypes[0])(leaves[0], layer)
            piece = self._for_all_roles(None if sent is None else [sent], [weight])[0]
            if stack is not None:
                there = NamedSharding(self._roles.sampler, weight.specs_of_piece()[1])
                stack = _placed(target)(stack, jax.jit(_same, out_shardings=there)(piece), layer)
        return None if stack is None else [stack]

    def _for_all_roles(self, pieces: list[jax.Array] | None, weights: list[Weight]) -> list[jax.Array]:
        """The learners' pieces, with a dimension of one in front, on one's own slice as they lie on the learners'."""
        specs, _ = _specs_and_dtypes(weights)
        given: list[Any] = [None] * len(weights) if pieces is None else pieces
        stacked = [
            self._with_roles(own, weight.piece, weight.dtype, spec)
            for own, weight, spec in zip(given, weights, specs, strict=True)
        ]
        everywhere = _sum_over_roles(self._mesh, specs)(stacked)
        return [self._own_part(leaf, spec) for leaf, spec in zip(everywhere, specs, strict=True)]

    def experience(self, sampled: Experience | None, shapes: Experience) -> Experience | None:
        """Hands what all groups sampled to the learners. Everybody must call it.

        Args:
          sampled: on the sampler's mesh; None of who learns.
          shapes: of one group's.

        Returns:
          That of all groups, on the learner's mesh; None for who samples.
        """
        self._meet()
        like, structure = jax.tree.flatten(shapes)
        axes = tuple(jax.tree.leaves(row_axes(shapes)))
        specs = tuple(P() if axis < 0 else P(*[None] * axis, ROWS) for axis in axes)
        # Collectives know numbers; whether True is one is every backend's own question.
        dtypes = tuple(jnp.dtype(jnp.uint8) if leaf.dtype == bool else leaf.dtype for leaf in like)
        given: list[Any] = [None] * len(like)
        if sampled is not None:
            given = _cast(self._own, specs, dtypes)(jax.tree.leaves(sampled))
        stacked = [
            self._with_roles(own, leaf.shape, dtype, spec)
            for own, leaf, dtype, spec in zip(given, like, dtypes, specs, strict=True)
        ]
        images = self._images // len(self._roles.groups)
        everywhere = _join(self._mesh, specs, axes, images, tuple(leaf.dtype for leaf in like))(stacked)
        if not self._roles.learns:
            return None
        own_parts = [self._own_part(leaf, spec) for leaf, spec in zip(everywhere, specs, strict=True)]
        return jax.tree.unflatten(structure, own_parts)

    def _with_roles(self, own: jax.Array | None, shape: tuple[int, ...], dtype: Any, spec: P) -> jax.Array:
        """The array of all roles, with one's own part; of zeros where one has none."""
        placed = NamedSharding(self._mesh, P(ROLE, *spec))
        whole = (self._mesh.shape[ROLE], *shape)
        if own is None:
            nothing = np.zeros(placed.shard_shape(whole), dtype)
            shards = [jax.device_put(nothing, device) for device in placed.addressable_devices]
        else:
            shards = [shard.data for shard in own.addressable_shards]
        return jax.make_array_from_single_device_arrays(whole, placed, shards)

    def _own_part(self, everywhere: jax.Array, spec: P) -> jax.Array:
        """What every slice has, on one's own."""
        shards = [shard.data for shard in everywhere.addressable_shards]
        return jax.make_array_from_single_device_arrays(everywhere.shape, NamedSharding(self._own, spec), shards)

    def _meet(self) -> None:
        """Waits for everybody: what moves data between hosts gives up after less than a long step takes."""
        self._meetings += 1
        wait_for_all(f"exchange-{self._meetings}")


def _specs_and_dtypes(weights: list[Weight]) -> tuple[tuple[P, ...], tuple[Any, ...]]:
    return tuple(weight.specs_of_piece()[0] for weight in weights), tuple(weight.dtype for weight in weights)


def _same(pieces: Any) -> Any:
    return pieces


@functools.cache
def _join(mesh: Mesh, specs: tuple[P, ...], axes: tuple[int, ...], images: int, dtypes: tuple[Any, ...]) -> Any:
    """Compiled: arrays [roles, …] → what the groups of samplers gave as one: figures added, of rows the first image of
    every group, then the second of every one, as the learners read them."""

    def joined(stacked: jax.Array, axis: int, dtype: Any) -> jax.Array:
        given = stacked[1:]
        if axis < 0:
            return jnp.sum(given, axis=0)
        groups, rows = given.shape[0], given.shape[axis + 1]
        lead, rest = given.shape[1 : axis + 1], given.shape[axis + 2 :]
        by_image = given.reshape(groups, *lead, images, rows // images, *rest)
        in_turns = jnp.moveaxis(by_image, 0, axis + 1)
        return in_turns.reshape(*lead, groups * rows, *rest).astype(dtype)

    def join(leaves: list[jax.Array]) -> list[jax.Array]:
        return [joined(leaf, axis, dtype) for leaf, axis, dtype in zip(leaves, axes, dtypes, strict=True)]

    return jax.jit(join, out_shardings=[NamedSharding(mesh, spec) for spec in specs])


@functools.cache
def _cast(mesh: Mesh, specs: tuple[P, ...], dtypes: tuple[Any, ...]) -> Any:
    """Compiled: arrays on a slice → the same, ready to be sent, with a dimension of one in front."""

    def cast(leaves: list[jax.Array]) -> list[jax.Array]:
        return [leaf.astype(dtype)[None] for leaf, dtype in zip(leaves, dtypes, strict=True)]

    return jax.jit(cast, out_shardings=[NamedSharding(mesh, P(None, *spec)) for spec in specs])


@functools.cache
def _cast_layer(mesh: Mesh, spec: P, dtype: Any) -> Any:
    def layer_of(leaf: jax.Array, layer: Any) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(leaf, layer, 1).astype(dtype)

    return jax.jit(layer_of, out_shardings=NamedSharding(mesh, P(None, *spec)))


@functools.cache
def _sum_over_roles(mesh: Mesh, specs: tuple[P, ...]) -> Any:
    def add(parts: list[jax.Array]) -> list[jax.Array]:
        return [jax.lax.psum(part[0], ROLE) for part in parts]

    before, after = [P(ROLE, *spec) for spec in specs], list(specs)
    return jax.jit(jax.shard_map(add, mesh=mesh, in_specs=(before,), out_specs=after, check_vma=False))


@functools.cache
def _placed(target: NamedSharding) -> Any:
    def place(stack: jax.Array, piece: jax.Array, layer: Any) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(stack, piece, layer, 0)

    return jax.jit(place, donate_argnums=0, out_shardings=target)
