"""Reading and writing safetensors tensor by tensor, without mapping the file into memory.

A mapped file counts as memory of the process once its pages are touched; plain reads keep the peak at one tensor.
Format: 8 bytes little-endian length of the header, the header as JSON, then the tensors' bytes back to back.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from types import TracebackType

import ml_dtypes
import numpy as np
from etils import epath
from jaxtyping import Shaped

from moonseg_jax.errors import UserError

DTYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
_LONGEST_HEADER = 100_000_000
_ALIGNMENT = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of a file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    """Bytes from the start of the file."""

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class SafetensorsFile:
    """A safetensors file, open for reading one tensor at a time."""

    def __init__(self, path: epath.Path):
        """Reads and checks the header.

        Raises:
          UserError: the file is missing, cut short or not what its header says.
        """
        self.path = path
        if not path.is_file():
            raise UserError(f"no weights {path}")
        with path.open("rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            size = path.stat().length
            if len(head) < 8 or length > min(_LONGEST_HEADER, size - 8):
                raise UserError(f"{path} is cut short or no safetensors file: it has {size} bytes and no whole header")
            self.entries = _entries(path, file.read(length), 8 + length, size)

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Shaped[np.ndarray, "..."]:
        """One tensor, read-only; `rows` reads a range of its first axis."""
        entry = self.entries[name]
        start, size, shape = entry.start, entry.size, entry.shape
        if rows is not None:
            row = size // shape[0]
            start, size, shape = start + rows[0] * row, (rows[1] - rows[0]) * row, (rows[1] - rows[0], *shape[1:])
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
        if len(data) != size:
            raise UserError(f"{self.path} is cut short: {name} has {len(data)} of {size} bytes")
        return np.frombuffer(data, entry.dtype).reshape(shape)


def _entries(path: epath.Path, header: bytes, first: int, size: int) -> dict[str, Entry]:
    try:
        fields = json.loads(header)
        fields.pop("__metadata__", None)
        entries = {}
        for name, field in fields.items():
            if field["dtype"] not in DTYPES:
                raise UserError(f"{path}: {name} has the unknown dtype {field['dtype']}")
            begin, end = field["data_offsets"]
            entry = Entry(dtype=DTYPES[field["dtype"]], shape=tuple(field["shape"]), start=first + begin)
            if begin < 0 or any(side < 0 for side in entry.shape) or end - begin != entry.size:
                raise UserError(f"{path}: {name} has {end - begin} bytes, its shape and dtype need {entry.size}")
            entries[name] = entry
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} has a broken header ({error}); it is no safetensors file") from error
    needed = max((entry.start + entry.size for entry in entries.values()), default=first)
    if needed > size:
        raise UserError(f"{path} is cut short: it has {size} bytes, its header needs {needed}; download it again")
    return entries


class SafetensorsWriter:
    """Writes tensors in an order fixed beforehand, each as soon as it is known."""

    def __init__(
        self, path: epath.Path, tensors: Iterable[tuple[str, np.dtype, tuple[int, ...]]], metadata: Mapping[str, str]
    ):
        """Writes the header of `tensors` (name, dtype, shape)."""
        fields: dict[str, object] = {"__metadata__": dict(metadata)}
        self._due = []
        offset = 0
        for name, dtype, shape in tensors:
            size = math.prod(shape) * dtype.itemsize
            fields[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
            self._due.append((name, dtype, shape))
            offset += size
        header = json.dumps(fields, separators=(",", ":")).encode()
        header += b" " * (-len(header) % _ALIGNMENT)
        self._file = path.open("wb")
        self._file.write(len(header).to_bytes(8, "little") + header)

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None and self._due:
            raise ValueError(f"{len(self._due)} tensors were announced and not written")

    def write(self, name: str, tensor: Shaped[np.ndarray, "..."]) -> None:
        """Appends the next announced tensor, cast to the type announced.

        Raises:
          ValueError: another one is due.
        """
        due, dtype, shape = self._due.pop(0)
        if (due, shape) != (name, tensor.shape):
            raise ValueError(f"{due} {shape} is due, not {name} {tensor.shape}")
        # Piece by piece: a transposed stack of experts is never copied whole.
        for piece in tensor if tensor.ndim > 2 else (tensor,):
            self._file.write(np.ascontiguousarray(piece, dtype).reshape(-1).view(np.uint8).data)
