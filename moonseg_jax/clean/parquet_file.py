"""Writing RefCOCO-M's format: parquet, a row an image, every kept instance with its phrases and its mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from moonseg_jax.clean.log import run_lengths
from moonseg_jax.clean.verdicts import Verdict
from moonseg_jax.errors import UserError

FILE = "validation-00000-of-00001.parquet"
"""RefCOCO-M has one split, and its name is validation, whatever split was cleaned."""
ROWS_AT_ONCE = 32


class RefCocoMFile:
    """The file while it is written, as a context manager: it appears under its name when all rows are in it."""

    def __init__(self, folder: Path):
        """Prepares the file.

        Raises:
          UserError: pyarrow is missing, or the file cannot be written.
        """
        self._pyarrow, parquet = load_pyarrow()
        self._schema = _schema(self._pyarrow)
        self.path = folder / FILE
        self._partial = self.path.with_name(FILE + ".partial")
        self._waiting: list[dict[str, Any]] = []
        try:
            self._writer = parquet.ParquetWriter(str(self._partial), self._schema)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror or error}; name another --out") from error

    def __enter__(self) -> RefCocoMFile:
        """Goes on to rows."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the file in its place, or removes what was written where rows are missing."""
        if error is None:
            self._flush()
        self._writer.close()
        if error is None:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)

    def add(self, image_file: bytes, kept: Sequence[Verdict]) -> None:
        """Writes a row.

        Args:
          image_file: the image, PNG or JPEG.
          kept: the kept instances of the image, at least one.
        """
        image_id = kept[0].instance.image_id
        kind = "png" if image_file.startswith(b"\x89PNG") else "jpg"
        name = f"{image_id:012d}.{kind}"
        self._waiting.append(
            {
                "image": {"bytes": image_file, "path": name}, "image_id": image_id, "file_name": name,
                "samples": [_sample(verdict) for verdict in kept],
            }
        )  # fmt: skip
        if len(self._waiting) == ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._pyarrow.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []


def _sample(verdict: Verdict) -> dict[str, Any]:
    one, mask = verdict.instance, verdict.found.consensus
    return {
        "id": one.example_ids[0], "image_id": one.image_id, "category": None, "supercategory": None, "label": None,
        "sentences": list(verdict.phrases), "bbox": _box(mask), "mask": run_lengths(mask),
    }  # fmt: skip


def _box(mask: Bool[np.ndarray, "H W"]) -> list[float]:
    """x, y, w, h in pixels of the smallest box around the mask."""
    return [float(side) for side in cv2.boundingRect(mask.astype(np.uint8))]


def _schema(pyarrow: Any) -> Any:
    text, number = pyarrow.string(), pyarrow.int64()
    sample = pyarrow.struct(
        [
            ("id", number), ("image_id", number), ("category", text), ("supercategory", text), ("label", text),
            ("sentences", pyarrow.list_(text)), ("bbox", pyarrow.list_(pyarrow.float64())),
            ("mask", pyarrow.struct([("counts", text), ("size", pyarrow.list_(number))])),
        ]
    )  # fmt: skip
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)])
    fields = [("image", image), ("image_id", number), ("file_name", text), ("samples", pyarrow.list_(sample))]
    return pyarrow.schema(fields)


def load_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet, an extra of the package.

    Raises:
      UserError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("writing parquet needs pyarrow: pip install 'moonseg-jax[parquet]'") from error
    return pyarrow, pyarrow.parquet
