"""An answer as the three files that a visitor may take along."""

from __future__ import annotations

import tempfile
from pathlib import Path

from moonseg_jax.segmentation import Segmentation

NAMES = ("mask.png", "path.svg", "answer.json")
"""The mask, 0 and 255; its path; and all of the answer: see `Segmentation.save`."""


def write_downloads(answer: Segmentation, folder: Path) -> tuple[Path, ...]:
    """Writes the files of `NAMES` into a folder of this answer's own.

    Args:
      answer: a finished one.
      folder: holds the folders of all answers.

    Raises:
      UserError: a file cannot be written.
    """
    own = Path(tempfile.mkdtemp(prefix="answer-", dir=folder))
    for name in NAMES:
        answer.save(own / name)
    return tuple(own / name for name in NAMES)
