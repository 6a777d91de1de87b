"""Meshes and placement of arrays on them; one device is a mesh of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moonseg_jax.axes import ROWS
from moonseg_jax.errors import UserError
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.partition import partition_specs

Tree = TypeVar("Tree")
NO_MESH = Mesh(np.empty((), object), ())
"""`jax.set_mesh(NO_MESH)`: for work with arrays of several meshes, inside the `set_mesh` of one of them."""


def make_mesh(devices: Sequence[jax.Device] | None = None, shape: MeshConfig | None = None) -> Mesh:
    """A mesh of all devices, or of the given ones; by default all of them split examples.

    Neighbouring devices, whose links are fastest, share an example: they lie along `tensor`, then `expert`.

    Raises:
      UserError: the shape does not fit the number of devices.
    """
    devices = list(devices if devices is not None else jax.devices())
    sizes = (shape or MeshConfig()).sizes(len(devices))
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), devices=devices, axis_types=(AxisType.Auto,) * len(sizes))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading dimension is split over the devices of `axes.ROWS`."""
    return NamedSharding(mesh, P(ROWS))


def row_shards(mesh: Mesh) -> int:
    """Parts that the rows of a batch are split into, over all processes."""
    return math.prod(mesh.shape[name] for name in ROWS)


def put_batch(mesh: Mesh, batch: Tree) -> Tree:
    """Places host arrays as a global batch: each process brings its share of the leading dimension.

    Raises:
      UserError: the leading dimension does not divide over the devices.
    """
    local, rest = divmod(row_shards(mesh) * len(mesh.local_devices), mesh.size)
    if rest:
        raise UserError(
            f"the mesh splits examples {row_shards(mesh)} times, and this process has {len(mesh.local_devices)} of its "
            f"{mesh.size} devices: an example must not be shared between processes; make mesh.tensor smaller"
        )

    def put(array: np.ndarray) -> jax.Array:
        if array.shape[0] % local:
            raise UserError(f"{array.shape[0]} images per process do not divide into its {local} shares of the mesh")
        return jax.make_array_from_process_local_data(batch_sharding(mesh), np.asarray(array))

    return jax.tree.map(put, batch)


def put_replicated(mesh: Mesh, tree: Tree) -> Tree:
    """Places the same values on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def put_parameters(mesh: Mesh, tree: Tree) -> Tree:
    """Splits parameters, or a learner's whole state, over the devices as `partition.RULES` say."""

    def put(leaf: Any, spec: P) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, NamedSharding(mesh, spec), lambda index: host[index])

    return jax.tree.map(put, tree, partition_specs(tree, dict(mesh.shape)))


def local_rows(tree: Any) -> Any:
    """This process's rows of arrays split along their leading dimension, as NumPy."""

    def rows(leaf: jax.Array) -> np.ndarray:
        shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
        return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])

    return jax.tree.map(rows, tree)


def to_host(tree: Any) -> Any:
    """Every process's copy of whole arrays, as NumPy; of split ones the parts are gathered, leaf by leaf."""

    def whole(leaf: jax.Array) -> np.ndarray:
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        if leaf.is_fully_addressable:
            return np.asarray(leaf)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(whole, tree)
