"""Weights and experience between devices of the same processes: every host learns and samples.

A transfer between meshes that share no device is not possible across processes (jax 0.10). So every piece of the
weights is gathered inside the learner's mesh, and copied from a device that learns to those of the same host that
sample; rollouts go the other way without leaving their host.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moonseg_jax.axes import ENGINES, ROWS
from moonseg_jax.placement.experience import Experience, row_axes
from moonseg_jax.placement.weights import Weight, in_loads, travelling_weights
from moonseg_jax.sharding import put_replicated


class WithinHosts:
    """The exchange of a placement in which every process learns and samples."""

    def __init__(self, learner: Mesh, sampler: Mesh, shapes: Any, dtype: Any):
        """Plans the way of the weights.

        Args:
          learner: devices that learn.
          sampler: devices that sample; of the same processes.
          shapes: of the policy's parameters.
          dtype: of the weights that sample.
        """
        self._learner, self._sampler = learner, sampler
        self._weights = travelling_weights(shapes, learner, sampler, dtype)

    @property
    def bytes(self) -> int:
        """Of all weights once, as they travel."""
        return sum(weight.bytes for weight in self._weights)

    def weights(self, params: Any) -> Any:
        """Copies parameters to the devices that sample; at no time is more than a piece whole on one device.

        Args:
          params: on the learner's mesh.
        """
        leaves, structure = jax.tree.flatten(params)
        moved: list[Any] = [None] * len(leaves)
        for load in in_loads(self._weights):
            weights = [self._weights[number] for number in load]
            if weights[0].layers:
                arrived = [self._in_layers(leaves[load[0]], weights[0])]
            else:
                arrived = self._whole([leaves[number] for number in load], weights)
            for number, leaf in zip(load, arrived, strict=True):
                moved[number] = leaf
        return jax.tree.unflatten(structure, moved)

    def _whole(self, leaves: Sequence[jax.Array], weights: Sequence[Weight]) -> list[jax.Array]:
        gathered = _gathered(self._learner, tuple(weight.dtype for weight in weights))(leaves)
        arrived = list[jax.Array]()
        for here, weight in zip(gathered, weights, strict=True):
            target, wanted = self._target(weight)
            parts = [_part(here.addressable_data(0), index, device) for device, index in wanted.items()]
            arrived.append(jax.make_array_from_single_device_arrays(weight.shape, target, parts))
        return arrived

    def _in_layers(self, leaf: jax.Array, weight: Weight) -> jax.Array:
        target, wanted = self._target(weight)
        stacks = [_empty(target.shard_shape(weight.shape), weight.dtype, device) for device in wanted]
        for layer in range(weight.layers):
            here = _gathered_layer(self._learner, weight.dtype)(leaf, layer).addressable_data(0)
            for number, (device, index) in enumerate(wanted.items()):
                stacks[number] = _place(stacks[number], _part(here, index[1:], device), layer)
        return jax.make_array_from_single_device_arrays(weight.shape, target, stacks)

    def _target(self, weight: Weight) -> tuple[NamedSharding, dict[jax.Device, tuple[slice, ...]]]:
        """How a weight lies on the sampler's mesh, and which part of it each device of this process gets."""
        target = NamedSharding(self._sampler, weight.sampler)
        wanted = target.addressable_devices_indices_map(weight.shape)
        return target, {device: index or () for device, index in wanted.items()}

    def experience(self, sampled: Experience) -> Experience:
        """Hands rows over to the devices that learn, host by host; figures lie on all of them.

        Args:
          sampled: on the sampler's mesh.
        """
        return jax.tree.map(self._handed_over, sampled, row_axes(sampled))

    def _handed_over(self, leaf: jax.Array, axis: int) -> jax.Array:
        if axis < 0:
            return put_replicated(self._learner, leaf.addressable_data(0))
        before, after = (P(*[None] * axis, names) for names in (ENGINES, ROWS))
        if leaf.sharding != (settled := NamedSharding(self._sampler, before)):
            leaf = jax.jit(lambda rows: rows, out_shardings=settled)(leaf)
        own = _own_part(leaf, self._sampler.local_mesh, before)
        moved = jax.device_put(own, NamedSharding(self._learner.local_mesh, after))
        shards = [shard.data for shard in moved.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, NamedSharding(self._learner, after), shards)


def _own_part(leaf: jax.Array, mesh: Mesh, spec: P) -> jax.Array:
    """This process's rows of an array as an array of its own devices alone."""
    shards = leaf.addressable_shards
    axis = len(spec) - 1
    starts = {shard.index[axis].start or 0 for shard in shards}
    length = shards[0].data.shape[axis] * len(starts)
    shape = (*leaf.shape[:axis], length, *leaf.shape[axis + 1 :])
    return jax.make_array_from_single_device_arrays(shape, NamedSharding(mesh, spec), [one.data for one in shards])


@functools.cache
def _gathered(mesh: Mesh, dtypes: tuple[Any, ...]) -> Any:
    def cast(leaves: Sequence[jax.Array]) -> list[jax.Array]:
        return [leaf.astype(dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)]

    return jax.jit(cast, out_shardings=NamedSharding(mesh, P()))


@functools.cache
def _gathered_layer(mesh: Mesh, dtype: Any) -> Any:
    def layer_of(leaf: jax.Array, layer: Any) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False).astype(dtype)

    return jax.jit(layer_of, out_shardings=NamedSharding(mesh, P()))


def _part(here: jax.Array, index: Sequence[slice], device: jax.Device) -> jax.Array:
    starts = tuple(one.start or 0 for one in index)
    sizes = tuple((one.stop or length) - (one.start or 0) for one, length in zip(index, here.shape, strict=True))
    cut = here if sizes == here.shape else _cut(here, starts, sizes)
    return jax.device_put(cut, device)


@functools.partial(jax.jit, static_argnums=2)
def _cut(here: jax.Array, starts: tuple[int, ...], sizes: tuple[int, ...]) -> jax.Array:
    return jax.lax.dynamic_slice(here, starts, sizes)


def _empty(shape: tuple[int, ...], dtype: Any, device: jax.Device) -> jax.Array:
    return jax.device_put(np.zeros(shape, dtype), device)


@functools.partial(jax.jit, donate_argnums=0)
def _place(stack: jax.Array, piece: jax.Array, layer: Any) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(stack, piece, layer, 0)
