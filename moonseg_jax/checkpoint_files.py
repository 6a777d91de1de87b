"""The list of a finished checkpoint's files: how many bytes each has, and their CRC-32, which a changed bit changes."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from moonseg_jax.errors import UserError
from moonseg_jax.processes import Team, gathered_from

FILES = "files.json"
"""In a checkpoint's folder, once it is finished. Lists of older versions hold bytes alone."""
PARTIAL = FILES + ".partial"
CHUNK = 2**22
THREADS = 8


class Damaged(UserError):
    """A checkpoint that was finished once and cannot be read now."""


def write_list(folder: Path) -> None:
    """Reads all files of a checkpoint and lists them; the list appears whole or not at all."""
    sizes = _sizes(folder)
    checksums = _checksums([folder / name for name in sizes])
    files = {
        name: {"bytes": size, "crc32": checksum}
        for (name, size), checksum in zip(sizes.items(), checksums, strict=True)
    }  # fmt: skip
    partial = folder / PARTIAL
    partial.write_text(json.dumps({"files": files, "crc32": _of_list(files)}), encoding="utf-8")
    os.replace(partial, folder / FILES)


def require_whole(folder: Path, team: Team | None = None) -> None:
    """Compares a checkpoint's files with its list; a save killed before the list was written has none.

    Args:
      folder: of the checkpoint.
      team: the processes that call this, where that is not all of them; they share the reading.

    Raises:
      Damaged: a file, or the list, is missing or not as it was written; names the first.
    """
    if not (folder / FILES).is_file():
        return
    listed = _read_list(folder)
    found = _sizes(folder)
    for name, (size, _) in listed.items():
        if found.get(name) != size:
            said = "is missing" if name not in found else f"has {found[name]} bytes of {size}"
            raise Damaged(f"{folder} is damaged: {name} {said}")
    team = team or tuple(range(jax.process_count()))
    changed = _first_changed(folder, listed, team.index(jax.process_index()), len(team))
    # One that sees no damage in its share must not go on alone.
    first = int(gathered_from(team, np.array([changed], np.int32)).min())
    if first < len(listed):
        raise Damaged(f"{folder} is damaged: {list(listed)[first]} is not what was written (its CRC-32 differs)")


def _first_changed(folder: Path, listed: Mapping[str, tuple[int, int | None]], member: int, members: int) -> int:
    """Position in the list of the first changed file among a member's share; the list's length where there is none."""
    share = [
        (position, name, checksum)
        for position, (name, (_, checksum)) in enumerate(listed.items())
        if checksum is not None and position % members == member
    ]
    found = _checksums([folder / name for _, name, _ in share])
    changed = (position for (position, _, checksum), now in zip(share, found, strict=True) if now != checksum)
    return min(changed, default=len(listed))


def _read_list(folder: Path) -> dict[str, tuple[int, int | None]]:
    """Bytes and CRC-32 by file.

    Raises:
      Damaged: the list is not what was written.
    """
    try:
        content: Any = json.loads((folder / FILES).read_text(encoding="utf-8"))
        if all(isinstance(size, int) for size in content.values()):
            return {name: (size, None) for name, size in content.items()}
        if _of_list(content["files"]) == content["crc32"]:
            return {name: (entry["bytes"], entry["crc32"]) for name, entry in content["files"].items()}
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
        with open(file, "rb") as opened:
            while chunk := opened.read(CHUNK):
                checksum = zlib.crc32(chunk, checksum)
    except OSError:
        # A bad sector: damage as well, to be told by all processes together.
        return None
    return checksum


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of all files under a folder."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in (FILES, PARTIAL))
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}
