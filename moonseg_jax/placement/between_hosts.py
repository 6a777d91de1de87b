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
from moonseg_jax.placement.weights import Weight, travelling_weights
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
        arrived = [self._moved(leaf, weight) for leaf, weight in zip(leaves, self._weights, strict=True)]
        return None if self._roles.learns else jax.tree.unflatten(self._structure, arrived)

    def _moved(self, leaf: jax.Array | None, weight: Weight) -> jax.Array | None:
        here, there = weight.specs_of_piece()
        target = NamedSharding(self._roles.sampler, weight.sampler)
        if not weight.layers:
            sent = None if leaf is None else _cast(self._roles.learner, here, weight.dtype)(leaf)
            piece = self._summed(sent, weight, here)
            return None if self._roles.learns else jax.jit(_same, out_shardings=target)(piece)
        stack = None if self._roles.learns else jnp.zeros(weight.shape, weight.dtype, device=target)
        for layer in range(weight.layers):
            sent = None if leaf is None else _cast_layer(self._roles.learner, here, weight.dtype)(leaf, layer)
            piece = self._summed(sent, weight, here)
            if stack is not None:
                settled = jax.jit(_same, out_shardings=NamedSharding(self._roles.sampler, there))(piece)
                stack = _placed(target)(stack, settled, layer)
        return stack

    def _summed(self, piece: jax.Array | None, weight: Weight, spec: P) -> jax.Array:
        """A learner's piece, on every slice's devices as it lies on the learner's."""
        placed = NamedSharding(self._mesh, P(ROLE, *spec))
        stacked = self._with_roles(piece, weight.piece, weight.dtype, placed)
        everywhere = _sum_over_roles(self._mesh, P(ROLE, *spec))(stacked)
        return self._of_own_role(everywhere, NamedSharding(self._own, spec))

    def experience(self, sampled: Experience | None, shapes: Experience) -> Experience | None:
        """Hands what all groups sampled to the learners. Everybody must call it.

        Args:
          sampled: on the sampler's mesh; None of who learns.
          shapes: of one group's.

        Returns:
          That of all groups, on the learner's mesh; None for who samples.
        """
        self._meet()
        axes = row_axes(shapes)
        given = shapes if sampled is None else sampled
        moved = jax.tree.map(functools.partial(self._handed_over, sampled is not None), given, shapes, axes)
        return moved if self._roles.learns else None

    def _handed_over(self, gives: bool, leaf: Any, shape: Any, axis: int) -> jax.Array:
        spec = P() if axis < 0 else P(*[None] * axis, ROWS)
        # Collectives know numbers; whether True is one is every backend's own question.
        dtype = jnp.dtype(jnp.uint8) if shape.dtype == bool else shape.dtype
        own = (
            jax.jit(lambda rows: rows.astype(dtype), out_shardings=NamedSharding(self._own, spec))(leaf)
            if gives
            else None
        )
        placed = NamedSharding(self._mesh, P(ROLE, *spec))
        stacked = self._with_roles(own, shape.shape, dtype, placed)
        join = _joined(axis, self._images // len(self._roles.groups), shape.dtype)
        everywhere = jax.jit(join, out_shardings=NamedSharding(self._mesh, spec))(stacked)
        shards = [shard.data for shard in everywhere.addressable_shards]
        return jax.make_array_from_single_device_arrays(everywhere.shape, NamedSharding(self._own, spec), shards)

    def _with_roles(
        self, own: jax.Array | None, shape: tuple[int, ...], dtype: Any, placed: NamedSharding
    ) -> jax.Array:
        """The array of all roles, with one's own part; of zeros where one has none."""
        whole = (self._mesh.shape[ROLE], *shape)
        if own is None:
            part = placed.shard_shape(whole)
            shards = [jnp.zeros(part, dtype, device=device) for device in placed.addressable_devices]
        else:
            shards = [shard.data[None] for shard in own.addressable_shards]
        return jax.make_array_from_single_device_arrays(whole, placed, shards)

    def _of_own_role(self, everywhere: jax.Array, placed: NamedSharding) -> jax.Array:
        shards = [shard.data[0] for shard in everywhere.addressable_shards]
        return jax.make_array_from_single_device_arrays(everywhere.shape[1:], placed, shards)

    def _meet(self) -> None:
        """Waits for everybody: what moves data between hosts gives up after less than a long step takes."""
        self._meetings += 1
        wait_for_all(f"exchange-{self._meetings}")


def _same(piece: jax.Array) -> jax.Array:
    return piece


def _joined(axis: int, images: int, dtype: Any) -> Any:
    """Function [roles, …] → what the groups of samplers gave as one: figures added, of rows the first image of every
    group, then the second of every one, as the learners read them."""

    def join(stacked: jax.Array) -> jax.Array:
        given = stacked[1:]
        if axis < 0:
            return jnp.sum(given, axis=0)
        groups, rows = given.shape[0], given.shape[axis + 1]
        lead, rest = given.shape[1 : axis + 1], given.shape[axis + 2 :]
        by_image = given.reshape(groups, *lead, images, rows // images, *rest)
        in_turns = jnp.moveaxis(by_image, 0, axis + 1)
        return in_turns.reshape(*lead, groups * rows, *rest).astype(dtype)

    return join


@functools.cache
def _cast(mesh: Mesh, spec: P, dtype: Any) -> Any:
    return jax.jit(lambda leaf: leaf.astype(dtype), out_shardings=NamedSharding(mesh, spec))


@functools.cache
def _cast_layer(mesh: Mesh, spec: P, dtype: Any) -> Any:
    def layer_of(leaf: jax.Array, layer: Any) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False).astype(dtype)

    return jax.jit(layer_of, out_shardings=NamedSharding(mesh, spec))


@functools.cache
def _sum_over_roles(mesh: Mesh, spec: P) -> Any:
    def add(part: jax.Array) -> jax.Array:
        return jax.lax.psum(part, ROLE)

    return jax.jit(jax.shard_map(add, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False), donate_argnums=0)


@functools.cache
def _placed(target: NamedSharding) -> Any:
    def place(stack: jax.Array, piece: jax.Array, layer: Any) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(stack, piece, layer, 0)

    return jax.jit(place, donate_argnums=0, out_shardings=target)
