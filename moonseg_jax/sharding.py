"""Meshes and placement of arrays on them; one device is a mesh of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moonseg_jax.axes import DATA, FSDP
from moonseg_jax.errors import UserError

Tree = TypeVar("Tree")


def make_mesh(devices: Sequence[jax.Device] | None = None, fsdp: int = 1) -> Mesh:
    """A mesh of all devices (or the given ones): `data` by `fsdp`.

    Raises:
      UserError: the number of devices is not a multiple of `fsdp`.
    """
    devices = list(devices if devices is not None else jax.devices())
    if len(devices) % fsdp:
        raise UserError(f"mesh.fsdp = {fsdp} does not divide the {len(devices)} devices")
    return jax.make_mesh(
        (len(devices) // fsdp, fsdp), (DATA, FSDP), devices=devices, axis_types=(AxisType.Auto, AxisType.Auto)
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading dimension is split over all devices."""
    return NamedSharding(mesh, P((DATA, FSDP)))


def put_batch(mesh: Mesh, batch: Tree) -> Tree:
    """Places host arrays as a global batch: each process brings its share of the leading dimension.

    Raises:
      UserError: the leading dimension does not divide over the devices.
    """
    local = len(mesh.local_devices)

    def put(array: np.ndarray) -> jax.Array:
        if array.shape[0] % local:
            raise UserError(f"{array.shape[0]} images per process do not divide over its {local} devices")
        return jax.make_array_from_process_local_data(batch_sharding(mesh), np.asarray(array))

    return jax.tree.map(put, batch)


def put_replicated(mesh: Mesh, tree: Tree) -> Tree:
    """Places the same values on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def local_rows(tree: Any) -> Any:
    """This process's rows of arrays split along their leading dimension, as NumPy."""

    def rows(leaf: jax.Array) -> np.ndarray:
        shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
        return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])

    return jax.tree.map(rows, tree)


def to_host(tree: Any) -> Any:
    """This process's copy of replicated arrays, as NumPy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)
