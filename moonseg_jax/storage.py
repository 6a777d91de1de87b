"""Folders and files of this machine or of a bucket, and what differs between the two.

A place of this machine is a `pathlib.Path`. A place of a bucket, `gs://…`, is an `epath.Path`, which is used alike; but
there an object is written whole or not at all, nothing is appended to, renaming copies, and a folder is nothing but the
beginning of names.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar, cast

from moonseg_jax.bucket_errors import told

if TYPE_CHECKING:
    from etils import epath

AnyPath = TypeVar("AnyPath", Path, "epath.Path")
SCHEME = "gs://"
CLIENTS = ("gcsfs", "fsspec")
KEPT = ".folder"
"""An empty object, without which a bucket knows no empty folder."""
COMMITTED = "commit_success.txt"
"""What Orbax writes last into a checkpoint of a bucket; without it, it is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """A file of a folder."""

    size: int
    """Bytes."""
    crc32c: str | None = None
    """The bucket's own checksum of the object, base64; of this machine's files None."""
    version: str = ""
    """Changes whenever the object is written; of this machine's files empty."""


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether this is an address of a bucket."""
    return os.fspath(path).startswith(SCHEME)


def place(address: str | os.PathLike[str]) -> Path:
    """A folder or file by what a user calls it; addresses of buckets go through here before they are used."""
    if not in_bucket(address):
        return Path(address)
    _set_up()
    from etils import epath

    # Not a pathlib.Path, but with all of its methods that are used for places that may be in a bucket.
    return cast(Path, epath.Path(address))


def absolute(path: AnyPath) -> AnyPath:
    """A place by a name that means the same from every folder."""
    # etils puts the working folder before a bucket's address.
    return path if in_bucket(path) else path.absolute()


@functools.cache
def _set_up() -> None:
    # etils would take TensorFlow's client where there is one: it knows other errors, and not what is asked here.
    os.environ.setdefault("EPATH_USE_TF", "false")
    try:
        import fsspec.config
    except ImportError:
        return  # Told when something is read.
    # TensorStore and other hosts write what this client would remember not to be there.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    for client in CLIENTS:
        # They log the traceback of whatever they raise; it is told in one line.
        logging.getLogger(client).setLevel(logging.CRITICAL)


def _client() -> Any:
    _set_up()
    import fsspec

    return fsspec.filesystem("gcs")


def bucket_of(path: str | os.PathLike[str]) -> str:
    """Name of the bucket that a place lies in."""
    return os.fspath(path).removeprefix(SCHEME).split("/")[0]


def require_readable(path: str | os.PathLike[str]) -> None:
    """Does nothing with a place of this machine.

    Raises:
      UserError: there is no such bucket, or this account may not list it; says what to do.
    """
    if in_bucket(path):
        with told(path):
            _client().call("GET", "b/{}/o", bucket_of(path), maxResults=1, json_out=True)


def require_writable(folder: Path) -> None:
    """Does nothing with a place of this machine; in a bucket, writes an object and removes it.

    Raises:
      UserError: there is no such bucket, or this account may not write there.
    """
    if in_bucket(folder):
        with told(folder):
            # Orbax asks this too, whenever it opens checkpoints.
            _client().call("GET", "b/{}", bucket_of(folder), json_out=True)
            probe = folder / f".may-write-{os.getpid()}-{time.monotonic_ns()}"
            probe.write_text("")
            probe.unlink()


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    if in_bucket(path):
        path.write_bytes(data)
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def save_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays by their names as a compressed `.npz`, whole or not at all."""
    import numpy as np

    if in_bucket(file):
        held = io.BytesIO()
        np.savez_compressed(held, allow_pickle=False, **arrays)
        file.write_bytes(held.getvalue())
        return
    partial = file.with_name(file.name + ".partial")
    with partial.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **arrays)
    partial.replace(file)


def for_random_reads(file: Path) -> Path | io.BytesIO:
    """What `np.load` opens: the file, or the content of a bucket's object."""
    return io.BytesIO(file.read_bytes()) if in_bucket(file) else file


def keep_folder(folder: Path) -> None:
    """Lets a bucket's folder be there while nothing is in it; Orbax lists the one that it has just emptied."""
    if in_bucket(folder) and not (folder / KEPT).exists():
        (folder / KEPT).write_text("")


def is_empty(folder: Path) -> bool:
    """Whether nothing is in a folder, or there is none."""
    return not folder.is_dir() or all(file.name == KEPT for file in folder.iterdir())


def files_under(folder: Path) -> dict[str, Stored]:
    """All files of a folder and the folders in it, by their names relative to it, sorted."""
    if not in_bucket(folder):
        files = (file for file in sorted(folder.rglob("*")) if file.is_file())
        return {str(file.relative_to(folder)): Stored(size=file.stat().st_size) for file in files}
    root = os.fspath(folder).removeprefix(SCHEME).rstrip("/") + "/"
    found = _client().find(root, detail=True)
    # Consoles leave empty objects whose names end in "/" where a folder was made.
    return {
        name.removeprefix(root): Stored(
            size=int(about["size"]), crc32c=about.get("crc32c"), version=str(about.get("generation", ""))
        )
        for name, about in sorted(found.items())
        if not name.endswith("/")
    }


def copy_to_this_machine(files: Sequence[str], folder: Path, target: Path) -> None:
    """Copies files of a bucket's folder; the folders they lie in must be there."""
    _client().get([os.fspath(folder / name) for name in files], [str(target / name) for name in files])


def copy_from_this_machine(folder: Path, target: PurePath, *, last: Sequence[str] = ()) -> None:
    """Copies all files of a folder into a bucket.

    Args:
      folder: on this machine.
      target: in a bucket.
      last: names of files without which the others count for nothing; they come after them.
    """
    client = _client()
    for name in sorted(files_under(folder), key=lambda name: last.index(name) if name in last else -1):
        client.put_file(str(folder / name), os.fspath(target / name))


def move_folder(folder: Path, target: Path) -> None:
    """Gives a folder another name, which nothing has; in a bucket, file by file.

    Orbax's mark of a finished checkpoint goes first: half moved, it is none.
    """
    if not in_bucket(folder):
        folder.rename(target)
        return
    client = _client()
    for name in sorted(files_under(folder), key=lambda name: name != COMMITTED):
        client.mv(os.fspath(folder / name), os.fspath(target / name))


class GrowingObject:
    """A text of a bucket that grows: it is held here and written whole each time."""

    def __init__(self, path: Path, text: str | None = None):
        """Takes up what is there.

        Args:
          path: of the object.
          text: what it holds now; None reads it.
        """
        self._path = path
        self._text = text if text is not None else path.read_text(encoding="utf-8") if path.exists() else ""
        self._written, self._since = self._text, time.monotonic()

    def append(self, text: str, *, at_most_every: float = 0.0) -> None:
        """Adds text and writes all, unless it was written less than so many seconds ago."""
        self._text += text
        if time.monotonic() - self._since >= at_most_every:
            self.flush()

    def flush(self) -> None:
        """Writes what has not been written yet."""
        if self._text != self._written:
            self._path.write_text(self._text, encoding="utf-8")
        self._written, self._since = self._text, time.monotonic()
