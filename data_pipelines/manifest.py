"""The small file at the root of every built data set that says what it is."""

from __future__ import annotations

import dataclasses
import json

from etils import epath

from moonseg_jax.errors import UserError

FILE_NAME = "moonseg_data.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataManifest:
    """What a data set is made of. Two data sets with equal manifests have equal records."""

    name: str
    settings: dict[str, int | str]
    """What its content depends on, such as seed and level."""
    splits: dict[str, int]
    """Split: number of scenes."""
    path: str
    """Folder of the TFDS files, relative to the folder of the manifest."""
    complete: bool = False
    """False while records are being written."""


def write_manifest(directory: epath.Path, manifest: DataManifest) -> None:
    """Writes a manifest into an existing folder."""
    (directory / FILE_NAME).write_text(json.dumps(dataclasses.asdict(manifest), indent=2) + "\n")


def read_manifest(directory: epath.Path) -> DataManifest | None:
    """The manifest of a folder, or None where there is none.

    Raises:
      UserError: if the file is there but cannot be understood.
    """
    file = directory / FILE_NAME
    if not file.exists():
        return None
    try:
        return DataManifest(**json.loads(file.read_text()))
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); build the data set again in an empty folder") from error
