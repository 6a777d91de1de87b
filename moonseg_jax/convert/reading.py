"""Opens what people have on disk: one safetensors file, a sharded folder, a `.pt` file, a Hugging Face repository.

Whatever it is, tensors are read one at a time, under the names they have there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from etils import epath
from jaxtyping import Shaped

from moonseg_jax.convert.safetensors_file import SafetensorsFile
from moonseg_jax.errors import UserError
from moonseg_jax.storage import in_bucket

INDEX = "model.safetensors.index.json"
HUB = "hf:"
HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer.json")
"""What is downloaded of a model's repository; pickled files and code are not."""
REFINER_HUB_FILES = ("*.safetensors", "*.pt")
"""What is downloaded of a refiner's repository: the official one is a `.pt` file."""


class TensorInfo(Protocol):
    """What is known of a tensor before it is read."""

    @property
    def dtype(self) -> np.dtype:
        """Storage type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def size(self) -> int:
        """Bytes."""


class TensorSource(Protocol):
    """Named tensors that can be read one at a time."""

    @property
    def entries(self) -> Mapping[str, TensorInfo]:
        """All tensors, by name."""

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Shaped[np.ndarray, "..."]:
        """One tensor; `rows` reads a range of its first axis."""


class ShardedFolder:
    """The shards of a safetensors index as one source."""

    def __init__(self, index: epath.Path):
        """Reads the index and the headers of all shards.

        Raises:
          UserError: the index is broken, shards are missing, or a shard and the index disagree.
        """
        try:
            weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
            shards = sorted(set(weight_map.values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index} is no safetensors index ({error!r})") from error
        if any(not isinstance(shard, str) or epath.Path(shard).name != shard for shard in shards):
            raise UserError(f"{index}: shards must be files beside the index")
        absent = [shard for shard in shards if not (index.parent / shard).is_file()]
        if absent:
            raise UserError(f"{index} names shards that are missing: {', '.join(absent)}; download them too")
        self._files = {shard: SafetensorsFile(index.parent / shard) for shard in shards}
        self._shard_of = {name: shard for shard, file in self._files.items() for name in file.entries}
        wrong = [
            f"{name} (index: {weight_map.get(name, 'absent')}; found: {self._shard_of.get(name, 'nowhere')})"
            for name in sorted(weight_map.keys() | self._shard_of.keys())
            if weight_map.get(name) != self._shard_of.get(name)
        ]
        if wrong:
            raise UserError(f"{index} and its shards disagree: {'; '.join(wrong)}")
        self.entries = {name: self._files[shard].entries[name] for name, shard in self._shard_of.items()}

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Shaped[np.ndarray, "..."]:
        """One tensor, from its shard."""
        return self._files[self._shard_of[name]].read(name, rows)


class TorchFile:
    """A `.pt` state dict, mapped into memory; only tensors are unpickled."""

    def __init__(self, path: epath.Path):
        """Opens the file.

        Raises:
          UserError: PyTorch is not installed, or the file holds anything but tensors.
        """
        try:
            import torch
        except ImportError as error:
            raise UserError(f"{path}: reading .pt files needs PyTorch; install torch, or convert the file") from error
        if in_bucket(path):
            raise UserError(f"{path}: .pt files are mapped from this machine's disk; copy it here first")
        if not path.is_file():
            raise UserError(f"no weights {path}")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises whatever its unpickler and its zip reader raise.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"{path} cannot be read as a PyTorch state dict ({reason})") from error
        if isinstance(state, dict) and isinstance(state.get("head"), dict):
            state = state["head"]
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
        ):
            raise UserError(f"{path} holds no state dict: names with tensors, or those under the key `head`")
        self._state: dict[str, Any] = state
        self.entries = {
            name: _TorchInfo(self._dtype(name, tensor, path), tuple(tensor.shape)) for name, tensor in state.items()
        }

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Shaped[np.ndarray, "..."]:
        """One tensor; its pages are touched only here."""
        tensor = self._state[name]
        return self._to_numpy(tensor if rows is None else tensor[rows[0] : rows[1]])

    def _dtype(self, name: str, tensor: Any, path: epath.Path) -> np.dtype:
        try:
            return self._to_numpy(tensor.new_empty(0)).dtype
        except (TypeError, RuntimeError) as error:
            raise UserError(
                f"{path}: {name} is a {tensor.layout} tensor of {tensor.dtype}, which cannot be read; known are dense "
                "tensors of float32, bfloat16, float16, and FP8 (float8_e4m3fn) with scales"
            ) from error

    @staticmethod
    def _to_numpy(tensor: Any) -> np.ndarray:
        import torch

        tensor = tensor.detach().contiguous()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        if tensor.dtype == torch.float8_e4m3fn:
            return tensor.view(torch.uint8).numpy().view(ml_dtypes.float8_e4m3fn)
        return tensor.numpy()


class _TorchInfo:
    def __init__(self, dtype: np.dtype, shape: tuple[int, ...]):
        self.dtype, self.shape = dtype, shape

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def local_path(source: epath.PathLike, files: Sequence[str] = HUB_FILES) -> epath.Path:
    """Where the weights lie; `hf:OWNER/NAME` is downloaded first.

    Args:
      source: path, or `hf:` and a repository.
      files: patterns of what to download.

    Raises:
      UserError: the repository cannot be fetched, or huggingface_hub is not installed.
    """
    if not str(source).startswith(HUB):
        return epath.Path(source)
    repository = str(source)[len(HUB) :]
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"{source}: downloading needs huggingface_hub; install it, or name a local folder") from error
    try:
        return epath.Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        # Its own errors derive from these two: no such repository, no access, no network.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{source} cannot be downloaded ({reason})") from error


def open_source(path: epath.Path) -> TensorSource:
    """The tensors of a file or folder, by what it holds.

    Args:
      path: a `.safetensors` or `.pt` file, or a folder with an index and its shards or with one such file.

    Raises:
      UserError: nothing there can be read, or it is not clear what should be.
    """
    if path.is_dir():
        if (path / INDEX).is_file():
            return ShardedFolder(path / INDEX)
        indices = sorted(path.glob("*.safetensors.index.json"))
        if len(indices) == 1:
            return ShardedFolder(indices[0])
        whole = path / "model.safetensors"
        found = [whole] if whole.is_file() else sorted([*path.glob("*.safetensors"), *path.glob("*.pt")])
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise UserError(f"{path} has no {INDEX} and not exactly one file of weights (found: {names}); name a file")
        path = found[0]
    if path.name.endswith(".index.json"):
        return ShardedFolder(path)
    if path.suffix in (".pt", ".pth", ".bin"):
        return TorchFile(path)
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    raise UserError(f"{path} is neither .safetensors nor .pt, and no folder of them")
