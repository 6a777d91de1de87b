"""The list of a finished checkpoint's files: how many bytes each has, and their CRC-32, which a changed bit changes.

In a bucket nothing is read for it: the service keeps a CRC-32C of every object, computed when it came, and lists it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from moonseg_jax.errors import UserError
from moonseg_jax.processes import Team, gathered_from
from moonseg_jax.storage import Stored, files_under, in_bucket, write_whole

FILES = "files.json"
"""In a checkpoint's folder, once it is finished. Lists of older versions hold bytes alone."""
PARTIAL = FILES + ".partial"
CHUNK = 2**22
THREADS = 8


class Listed(NamedTuple):
    """What a list says of a file; the checksums that it does not hold are None."""

    size: int
    crc32: int | None = None
    crc32c: str | None = None


class Damaged(UserError):
    """A checkpoint that was finished once and cannot be read now."""


def write_list(folder: Path) -> None:
    """Reads all files of a checkpoint and lists them; the list appears whole or not at all."""
    found = _files(folder)
    files: dict[str, dict[str, Any]] = {name: {"bytes": stored.size} for name, stored in found.items()}
    if in_bucket(folder):
        for name, stored in found.items():
            files[name]["crc32c"] = stored.crc32c
    else:
        for name, checksum in zip(found, _checksums([folder / name for name in found]), strict=True):
            files[name]["crc32"] = checksum
    write_whole(folder / FILES, json.dumps({"files": files, "crc32": _of_list(files)}))


def require_whole(folder: Path, team: Team | None = None) -> None:
    """Compares a checkpoint's files with its list; a save killed before the list was written has none.

    Of a list from a bucket, files that were copied to this machine are compared by their bytes alone.

    Args:
      folder: of the checkpoint.
      team: the processes that call this, where that is not all of them; they share the reading.

    Raises:
      Damaged: a file, or the list, is missing or not as it was written; names the first.
    """
    if not (folder / FILES).is_file():
        return
    listed = _read_list(folder)
    found = _files(folder)
    for name, one in listed.items():
        if name not in found or found[name].size != one.size:
            said = "is missing" if name not in found else f"has {found[name].size} bytes of {one.size}"
            raise Damaged(f"{folder} is damaged: {name} {said}")
        if None not in (one.crc32c, found[name].crc32c) and one.crc32c != found[name].crc32c:
            raise Damaged(f"{folder} is damaged: {name} is not what was written (its CRC-32C differs)")
    team = team or tuple(range(jax.process_count()))
    changed = _first_changed(folder, listed, team.index(jax.process_index()), len(team))
    # One that sees no damage in its share must not go on alone.
    first = int(gathered_from(team, np.array([changed], np.int32)).min())
    if first < len(listed):
        raise Damaged(f"{folder} is damaged: {list(listed)[first]} is not what was written (its CRC-32 differs)")


def _first_changed(folder: Path, listed: Mapping[str, Listed], member: int, members: int) -> int:
    """Position in the list of the first changed file among a member's share; the list's length where there is none."""
    share = [
        (position, name, one.crc32)
        for position, (name, one) in enumerate(listed.items())
        if one.crc32 is not None and position % members == member
    ]
    found = _checksums([folder / name for _, name, _ in share])
    changed = (position for (position, _, checksum), now in zip(share, found, strict=True) if now != checksum)
    return min(changed, default=len(listed))


def _read_list(folder: Path) -> dict[str, Listed]:
    """What the list says, by file.

    Raises:
      Damaged: the list is not what was written.
    """
    try:
        content: Any = json.loads((folder / FILES).read_text(encoding="utf-8"))
        if all(isinstance(size, int) for size in content.values()):
            return {name: Listed(size) for name, size in content.items()}
        if _of_list(content["files"]) == content["crc32"]:
            return {
                name: Listed(entry["bytes"], entry.get("crc32"), entry.get("crc32c"))
                for name, entry in content["files"].items()
            }  # fmt: skip
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError) as error:
        raise Damaged(f"{folder} is damaged: {FILES} is not the list that was written ({error})") from error
    raise Damaged(f"{folder} is damaged: {FILES} is not the list that was written (its CRC-32 differs)")


def _of_list(files: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(files, sort_keys=True).encode())


def _checksums(files: list[Path]) -> list[int | None]:
    """CRC-32 by file; None for one that the system cannot read."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_checksum, files))


def _checksum(file: Path) -> int | None:
    checksum = 0
    try:
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK):
                checksum = zlib.crc32(chunk, checksum)
    except OSError:
        # A bad sector: damage as well, to be told by all processes together.
        return None
    return checksum


def _files(folder: Path) -> dict[str, Stored]:
    """All files under a folder but the list itself."""
    found = files_under(folder).items()
    return {name: stored for name, stored in found if Path(name).name not in (FILES, PARTIAL)}
