"""Folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path as LocalPath

from etils import epath

from moonseg_jax.bucket_errors import told
from moonseg_jax.errors import UserError
from moonseg_jax.storage import copy_from_this_machine, in_bucket, require_writable

DOORS = ("refiner.safetensors", "model.safetensors.index.json", "model.json", "config.json")
"""Files by which readers find a checkpoint, here or in PyTorch."""


@contextlib.contextmanager
def appearing(out: epath.Path) -> Iterator[epath.Path]:
    """A temporary sibling to write to, renamed to `out` at the end; removed if anything goes wrong.

    For a bucket it is written on this machine, and copied at the end, those files last by which readers find it.

    Raises:
      UserError: `out` exists and is not an empty folder, or cannot be written.
    """
    if in_bucket(out):
        yield from _staged_for_bucket(out)
        return
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


def _staged_for_bucket(out: epath.Path) -> Iterator[epath.Path]:
    """Orbax writes leaf by leaf on disks only, and nothing of a bucket can be taken back at once."""
    require_writable(out)
    if out.exists():
        raise UserError(f"{out} exists already; name another folder, or remove it (gcloud storage rm --recursive)")
    try:
        with tempfile.TemporaryDirectory(prefix="moonseg-") as staged:
            yield epath.Path(staged)
            with told(out):
                copy_from_this_machine(LocalPath(staged), out, last=DOORS)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{out} is written on this machine first, and {tempfile.gettempdir()} cannot take it ({error.strerror}): "
            "make room, or name another folder with TMPDIR"
        ) from error
