"""Lists of photos and phrases that a data set leaves out, written before the data set is."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence

from etils import epath

from data_pipelines.writing import MISSING_IMAGES, REFUSED_PHRASES
from moonseg_jax.errors import UserError


def report_left_out(
    out: str | os.PathLike[str], refused: Sequence[str], missing: Collection[str], photos: int, allow_missing: int
) -> None:
    """Lists what is left out, before anything is written.

    Args:
      out: folder of the data set.
      refused: a line for every phrase that is no example.
      missing: a line for every photo that is missing or broken.
      photos: number of all, these included.
      allow_missing: most that may be missing or broken.

    Raises:
      UserError: more photos are missing or broken than may be.
    """
    folder = epath.Path(out)
    _write_list(folder, REFUSED_PHRASES, refused)
    _write_list(folder, MISSING_IMAGES, missing)
    if len(missing) > allow_missing:
        first = next(iter(missing))
        raise UserError(
            f"{len(missing)} of {photos} photos are missing or broken, "
            f"{allow_missing} may be; all are listed in {folder / MISSING_IMAGES}, the first: {first}; "
            f"get them, or say --allow-missing {len(missing)} to leave them out"
        )
    if refused:
        print(f"{len(refused)} expressions left out, listed in {folder / REFUSED_PHRASES}", file=sys.stderr)


def _write_list(folder: epath.Path, name: str, lines: Iterable[str]) -> None:
    """Writes lines into a file of the folder; no file for no lines."""
    text = "".join(f"{line}\n" for line in lines)
    try:
        if text:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        elif (folder / name).exists():
            (folder / name).unlink()
    except OSError as error:
        raise UserError(f"{folder / name} cannot be written: {error.strerror or error}; name another folder") from error
