"""Data sets of buckets on this machine: copied once, whole, before they are read.

Records are read at random, a few kilobytes at a time, by a reader that knows files only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import track

from moonseg_jax.bucket_errors import told
from moonseg_jax.errors import UserError
from moonseg_jax.storage import Stored, copy_to_this_machine, files_under, in_bucket, place, require_readable

VARIABLE = "MOONSEG_CACHE"
FILES_AT_ONCE = 16


def on_this_machine(directory: str | os.PathLike[str]) -> Path:
    """The folder itself, or the copy of a bucket's folder, which is made if there is none of its present content.

    Args:
      directory: of a data set.

    Raises:
      UserError: the bucket cannot be read, nothing is there, or there is no room for the copy.
    """
    if not in_bucket(directory):
        return Path(directory)
    require_readable(directory)
    source = place(directory)
    with told(source):
        files = files_under(source)
    if not files:
        raise UserError(f"{source} holds no data set: nothing is there; copy one (gcloud storage cp --recursive)")
    copy = cache_folder() / f"{source.name}-{_key(str(source), files)}"
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with _alone(copy.with_name(copy.name + ".lock")):
            if not copy.is_dir():
                _copy(source, files, copy)
    except OSError as error:
        if error.errno is None:
            raise
        raise UserError(
            f"{source} cannot be copied to {copy} ({error.strerror}): make room, or name another folder with {VARIABLE}"
        ) from error
    return copy


def cache_folder() -> Path:
    """Where copies lie: MOONSEG_CACHE, or `moonseg/data` in the user's cache."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moonseg" / "data"


def _copy(source: Path, files: dict[str, Stored], copy: Path) -> None:
    """Copies beside, compares sizes, renames: what has the name is whole."""
    partial = copy.with_name(copy.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in {PurePosixPath(name).parent for name in files}:
        (partial / folder).mkdir(parents=True, exist_ok=True)
    names = list(files)
    groups = [names[start : start + FILES_AT_ONCE] for start in range(0, len(names), FILES_AT_ONCE)]
    total = sum(stored.size for stored in files.values())
    title = f"copying {source} ({total / 2**20:,.0f} MiB) to {copy}"
    for group in track(groups, description=title, console=Console(stderr=True)):
        with told(source):
            copy_to_this_machine(group, source, partial)
    for name, stored in files.items():
        size = (partial / name).stat().st_size if (partial / name).is_file() else 0
        if size != stored.size:
            raise UserError(f"{source / name}: {size} bytes of {stored.size} came: it changed meanwhile; try again")
    partial.rename(copy)


def _key(address: str, files: dict[str, Stored]) -> str:
    listing = [(name, stored.size, stored.version) for name, stored in files.items()]
    return hashlib.sha256(json.dumps([address, listing]).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Of the processes of this machine one copies, while the others wait for it."""
    import fcntl

    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
