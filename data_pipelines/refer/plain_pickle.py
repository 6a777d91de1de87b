"""Pickles of untrusted origin: lists, dictionaries, text and numbers come out, nothing else ever runs."""

from __future__ import annotations

import io
import os
import pickle
from typing import Any, NoReturn

from etils import epath

from moonseg_jax.errors import UserError

UNREADABLE = (
    pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    MemoryError, RecursionError,
)  # fmt: skip
"""What the unpickler raises on broken files."""


class _PlainUnpickler(pickle.Unpickler):
    """Knows no classes and no functions: plain values need none."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuses whatever a pickle would import."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; only lists, dictionaries, text and numbers may")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuses references to objects outside the file."""
        raise pickle.UnpicklingError("it refers to objects outside the file")


def read_plain_pickle(file: str | os.PathLike[str]) -> tuple[Any, bytes]:
    """Reads a pickle that holds plain values only, also those written by Python 2.

    Returns:
      The value, and the content of the file.

    Raises:
      UserError: no such file, not a pickle, or one that asks for anything but plain values.
    """
    try:
        content = epath.Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"pickle {os.fspath(file)}: cannot be read ({error.strerror or error})") from error
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load(), content
    except UNREADABLE as error:
        reason = f"{error}" or type(error).__name__
        raise UserError(f"pickle {os.fspath(file)}: refused ({reason}); give the file as REFER has it") from error
