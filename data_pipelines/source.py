"""Random access to the scenes of a built data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from data_pipelines.local_copy import on_this_machine
from data_pipelines.manifest import FILE_NAME, DataManifest, read_manifest
from data_pipelines.schema import to_scene
from moonseg_jax.errors import UserError
from moonseg_jax.types import Scene


class SceneSource:
    """The scenes of one split; `source[i]` reads and decodes scene i from disk."""

    def __init__(self, records: Sequence[dict[str, Any]], manifest: DataManifest, split: str):
        self._records = records
        self.manifest = manifest
        self.split = split

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self._records)

    def __getitem__(self, index: int) -> Scene:
        """Scene `index`, 0 to len - 1."""
        return to_scene(self._records[index])

    def record(self, index: int) -> dict[str, Any]:
        """Record `index` as `schema` describes it, its image still encoded."""
        return self._records[index]

    def image_ids(self) -> list[int]:
        """The image of every scene; images are not decoded."""
        return [int(self._records[index]["image_id"]) for index in range(len(self._records))]

    def image_file(self, index: int) -> bytes:
        """The image of scene `index` as the PNG or JPEG file that is stored."""
        return bytes(self._records[index]["image"])

    def places(self, example_ids: set[int]) -> dict[int, tuple[int, int]]:
        """Where examples are: id → (scene, position in the scene); ids the split does not have are left out.

        Reads records in order until all are found; images are not decoded.
        """
        found: dict[int, tuple[int, int]] = {}
        for scene in range(len(self._records)):
            if len(found) == len(example_ids):
                break
            for position, example_id in enumerate(self._records[scene]["examples"]["example_id"]):
                if int(example_id) in example_ids:
                    found[int(example_id)] = (scene, position)
        return found


def open_split(directory: str | os.PathLike[str], split: str, *, at_least: int = 1) -> SceneSource:
    """Opens a split of any data set that the project has built.

    Args:
      directory: the folder that was named when it was built, or a copy of it; one in a bucket is copied here first.
      split: name of the split, such as `train`.
      at_least: fewest scenes the caller needs.

    Raises:
      UserError: if the folder holds no finished data set, its files are damaged, or the split is missing or too
        small.
    """
    folder = epath.Path(on_this_machine(directory))
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"{folder} holds no data set: there is no {FILE_NAME}; "
            f"build one, for example with `moonseg data build shapes --out {folder}`"
        )
    if not manifest.complete:
        raise UserError(f"{folder}: the data set was not finished; run the command that builds it once more")
    if split not in manifest.splits:
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(manifest.splits)}")
    try:
        builder = tfds.builder_from_directory(folder / manifest.path)
        records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        # Files are opened when they are read: the first and the last record show whether they are there and whole.
        _ = records[0], records[len(records) - 1]
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: the data set is damaged ({error}); build it again in an empty folder") from error
    if len(records) < at_least:
        raise UserError(
            f"{folder}: split {split!r} has {len(records)} scenes, {at_least} are needed; build a larger one"
        )
    return SceneSource(records, manifest, split)
