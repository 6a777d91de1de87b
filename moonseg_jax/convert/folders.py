"""Folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from etils import epath

from moonseg_jax.errors import UserError


@contextlib.contextmanager
def appearing(out: epath.Path) -> Iterator[epath.Path]:
    """A temporary sibling to write to, renamed to `out` at the end; removed if anything goes wrong.

    Raises:
      UserError: `out` exists and is not an empty folder, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; name another folder, or remove it")
    # One name per target: what a killed process left behind is found and replaced.
    partial = out.parent / f".{out.name}.partial"
    try:
        if partial.exists():
            partial.rmtree()
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except PermissionError:
        raise
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error})") from error
    finally:
        if partial.exists():
            partial.rmtree()
