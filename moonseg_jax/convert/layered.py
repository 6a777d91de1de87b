"""A policy on disk with one leaf per layer: an Orbax checkpoint that is written and read leaf by leaf.

FOLDER/model.json    the ModelConfig
FOLDER/policy/       Orbax checkpoint; the leaf `vision/blocks/qkv/kernel` [layer, …] lies there as
                     `vision/blocks/000/qkv/kernel`, `vision/blocks/001/qkv/kernel`, …

Neither writing nor restoring ever holds the whole model.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from jaxtyping import Shaped
from orbax.checkpoint import v1 as ocp

from moonseg_jax.config import ModelConfig
from moonseg_jax.convert.layouts import Shape
from moonseg_jax.convert.names import Path, Stack
from moonseg_jax.errors import UserError
from moonseg_jax.storage import absolute
from moonseg_jax.weights import POLICY

_STACKS = {stack.value for stack in Stack}
BATCH_BYTES = 64 << 20
"""Small leaves are written and read together up to this size."""
Key = tuple[Path, int | None]
"""Path of a leaf; and its layer, where the leaf is stacked."""


def stored_path(path: Path, layer: int | None) -> Path:
    """Where a leaf, or a layer of a stacked leaf, lies in the stored tree."""
    return path if layer is None else (*path[:2], f"{layer:03d}", *path[2:])


def is_stacked(path: Path) -> bool:
    """Whether the leaf stacks layers along its first axis."""
    return path[:2] in _STACKS


class LayeredWriter:
    """Writes leaves as they come; the checkpoint exists only after `finish`."""

    def __init__(self, folder: epath.Path):
        """Nothing is written yet; `folder` must not hold a policy."""
        self._target = absolute(folder / POLICY)
        self._waiting: dict[Path, np.ndarray] = {}
        self._bytes = 0

    def add(self, path: Path, layer: int | None, values: Shaped[np.ndarray, "..."]) -> None:
        """Takes one leaf, or one layer of a stacked leaf."""
        if self._bytes + values.nbytes > BATCH_BYTES:
            self._flush()
        self._waiting[stored_path(path, layer)] = values
        self._bytes += values.nbytes
        if self._bytes > BATCH_BYTES:
            self._flush()

    def finish(self) -> None:
        """Completes the checkpoint."""
        self._flush()
        ocp.partial.finalize(self._target)

    def _flush(self) -> None:
        if self._waiting:
            context = ocp.Context()
            # Compressing holds a whole leaf once more, and trained weights hardly shrink.
            context.array.saving.use_compression = False
            with context:
                ocp.partial.save(self._target, unflatten_dict(self._waiting))
        self._waiting, self._bytes = {}, 0


class LayeredPolicy:
    """A stored policy, read one leaf or one layer at a time."""

    def __init__(self, folder: epath.Path):
        """Reads what is there, without values.

        Raises:
          UserError: no finished checkpoint.
        """
        self._target = absolute(folder / POLICY)
        try:
            metadata = ocp.metadata(self._target).metadata
            self._stored = flatten_dict(metadata)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._target} is no finished checkpoint of a policy ({error})") from error

    def check(self, shapes: Mapping[Path, Shape]) -> None:
        """Refuses a checkpoint whose leaves are not those of the model.

        Args:
          shapes: of the model's leaves, stacks included.

        Raises:
          UserError: names every leaf that is missing, unexpected or of another shape.
        """
        wanted = {
            stored_path(path, layer): shape if layer is None else shape[1:]
            for path, shape in shapes.items()
            for layer in layers_of(path, shape)
        }
        refuse_other_leaves(wanted, {path: tuple(leaf.shape) for path, leaf in self._stored.items()}, str(self._target))

    def dtype(self, path: Path, layer: int | None) -> np.dtype:
        """Storage type of a leaf or of one of its layers."""
        return np.dtype(self._stored[stored_path(path, layer)].dtype)

    def read(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Shaped[np.ndarray, "..."]]]:
        """Leaves, or layers of stacked ones, as host arrays, in the order asked for."""
        yield from self._read(keys, lambda _, stored: stored)

    def read_onto(
        self, keys: Iterable[Key], dtype: np.dtype, shardings: Mapping[Path, Sharding]
    ) -> Iterator[tuple[Key, jax.Array]]:
        """Leaves, or layers of stacked ones, cast and placed; each process reads only its shards.

        Args:
          keys: path and layer.
          dtype: to cast to.
          shardings: by path; of one layer where the leaf is stacked.
        """
        yield from self._read(
            keys, lambda path, stored: jax.ShapeDtypeStruct(stored.shape, dtype, sharding=shardings[path])
        )

    def _read(self, keys: Iterable[Key], like: Callable[[Path, Any], Any]) -> Iterator[tuple[Key, Any]]:
        """Reads small leaves together: a call of Orbax takes longer than they do."""
        batch: list[Key] = []
        due = 0
        for key in keys:
            size = self._bytes(key)
            if batch and due + size > BATCH_BYTES:
                yield from self._load(batch, like)
                batch, due = [], 0
            batch.append(key)
            due += size
        yield from self._load(batch, like)

    def _load(self, batch: list[Key], like: Callable[[Path, Any], Any]) -> Iterator[tuple[Key, Any]]:
        if not batch:
            return
        wanted: dict[Path, Any] = dict.fromkeys(self._stored, ocp.PLACEHOLDER)
        for path, layer in batch:
            stored = stored_path(path, layer)
            wanted[stored] = like(path, self._stored[stored])
        loaded = flatten_dict(ocp.load(self._target, unflatten_dict(wanted)))
        for path, layer in batch:
            yield (path, layer), loaded.pop(stored_path(path, layer))

    def _bytes(self, key: Key) -> int:
        leaf = self._stored[stored_path(*key)]
        return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def refuse_other_leaves(wanted: Mapping[Path, Shape], found: Mapping[Path, Shape], where: str) -> None:
    """Raises an error that names every leaf that is missing, unexpected or of another shape.

    Args:
      wanted: shapes of the model's leaves.
      found: shapes of the stored leaves.
      where: file or folder.

    Raises:
      UserError: there is at least one.
    """
    problems = [
        f"{'/'.join(path)}: stored {found.get(path, 'nowhere')}, the model has {wanted.get(path, 'no such leaf')}"
        for path in sorted(wanted.keys() | found.keys())
        if wanted.get(path) != found.get(path)
    ]
    if problems:
        raise UserError(f"{where} is a checkpoint of another model:\n  " + "\n  ".join(problems))


def keys_of(shapes: Mapping[Path, Shape]) -> Iterator[Key]:
    """Every leaf of a model: its path, and each of its layers if it is stacked."""
    for path, shape in shapes.items():
        for layer in layers_of(path, shape):
            yield path, layer


def layers_of(path: Path, shape: Shape) -> Iterator[int | None]:
    """The layers of a stacked leaf; None, once, for any other."""
    yield from range(shape[0]) if is_stacked(path) else (None,)


def restore_host(policy: LayeredPolicy, shapes: Mapping[Path, Shape], dtype: np.dtype) -> dict[str, Any]:
    """The parameters as nested dicts of host arrays of one type.

    Raises:
      UserError: the checkpoint is of another model.
    """
    policy.check(shapes)
    leaves = {path: np.empty(shape, dtype) for path, shape in shapes.items()}
    for (path, layer), values in policy.read(keys_of(shapes)):
        leaves[path][... if layer is None else layer] = values
    return unflatten_dict(leaves)


def restore_sharded(
    policy: LayeredPolicy, shapes: Mapping[Path, Shape], dtype: np.dtype, shardings: dict[Path, NamedSharding]
) -> dict[str, Any]:
    """The parameters as nested dicts of device arrays: one layer at a time, straight into their shards.

    Args:
      policy: the stored leaves.
      shapes: of the model's leaves, stacks included.
      dtype: of the parameters.
      shardings: where each leaf goes.

    Raises:
      UserError: the checkpoint is of another model.
    """
    policy.check(shapes)
    rows = {
        path: NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:])) if is_stacked(path) else sharding
        for path, sharding in shardings.items()
    }
    leaves: dict[Path, jax.Array] = {}
    for path, shape in shapes.items():
        if is_stacked(path):
            zeros = np.broadcast_to(np.zeros((), dtype), shape)
            leaves[path] = jax.make_array_from_callback(shape, shardings[path], zeros.__getitem__)
    for (path, layer), values in policy.read_onto(keys_of(shapes), dtype, rows):
        leaves[path] = values if layer is None else _write_layer(shardings[path])(leaves[path], values, layer)
    return unflatten_dict(leaves)


@functools.cache
def _write_layer(sharding: NamedSharding) -> Callable[..., jax.Array]:
    """Writes a layer into a stack, in place."""
    return jax.jit(lambda stack, one, layer: stack.at[layer].set(one), donate_argnums=0, out_shardings=sharding)


def with_own_tokenizer(config: ModelConfig, folder: epath.Path) -> ModelConfig:
    """The config with the path of the tokenizer that lies in the checkpoint's folder, if one does."""
    own = folder / config.paths.tokenizer
    if ":" in config.paths.tokenizer or not own.is_file():
        return config
    return dataclasses.replace(config, paths=dataclasses.replace(config.paths, tokenizer=str(own)))
