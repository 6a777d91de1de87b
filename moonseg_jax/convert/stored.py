"""The checkpoints of this package, whichever form they have, read leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np
from etils import epath
from jaxtyping import Shaped

from moonseg_jax.convert.layered import Key, LayeredPolicy, refuse_other_leaves
from moonseg_jax.convert.layouts import Shape
from moonseg_jax.convert.names import Path
from moonseg_jax.convert.safetensors_file import SafetensorsFile
from moonseg_jax.weights import POLICY


class StoredLeaves(Protocol):
    """Our parameters on disk; a key is a path and, where the leaf is stacked, a layer."""

    def check(self, shapes: Mapping[Path, Shape]) -> None:
        """Refuses leaves that are not those of the model."""

    def dtype(self, path: Path, layer: int | None) -> np.dtype:
        """Storage type of a leaf or of one of its layers."""

    def read(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Shaped[np.ndarray, "..."]]]:
        """Host arrays, in the order asked for."""


class StackedFile:
    """Parameters in one safetensors file, stacks whole, as `weights` writes them."""

    def __init__(self, file: epath.Path):
        """Reads the header.

        Raises:
          UserError: the file is missing or broken.
        """
        self._file = SafetensorsFile(file)

    @property
    def shapes(self) -> dict[Path, Shape]:
        """Shapes of the leaves, stacks whole."""
        return {tuple(name.split("/")): entry.shape for name, entry in self._file.entries.items()}

    def check(self, shapes: Mapping[Path, Shape]) -> None:
        """Refuses leaves that are not those of the model.

        Raises:
          UserError: names every leaf that is missing, unexpected or of another shape.
        """
        refuse_other_leaves(shapes, self.shapes, str(self._file.path))

    def dtype(self, path: Path, layer: int | None) -> np.dtype:
        """Storage type of a leaf; all its layers share it."""
        return self._file.entries["/".join(path)].dtype

    def read(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Shaped[np.ndarray, "..."]]]:
        """Host arrays, in the order asked for."""
        for path, layer in keys:
            name = "/".join(path)
            if layer is None:
                yield (path, layer), self._file.read(name)
            else:
                yield (path, layer), self._file.read(name, (layer, layer + 1))[0]


def open_policy(folder: epath.Path) -> StoredLeaves | None:
    """The policy of a checkpoint, imported or trained; None where it has none."""
    if (folder / POLICY).is_dir():
        return LayeredPolicy(folder)
    file = folder / f"{POLICY}.safetensors"
    return StackedFile(file) if file.is_file() else None
