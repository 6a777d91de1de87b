"""What the TFDS builders of the project share: one schema, ArrayRecord files, no TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from data_pipelines.schema import features


@dataclasses.dataclass(kw_only=True)
class RecordConfig(tfds.core.BuilderConfig):
    """The splits of a data set; subclasses add what fixes its content."""

    splits: dict[str, int]
    """Split: number of scenes, at least one."""


class RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes records in the order they are generated. Subclasses have a VERSION and `records`."""

    # TFDS 4.9.10 would look this up with importlib_resources, which it does not declare as a dependency.
    code_path = epath.Path(__file__)

    def __init__(self, *, config: RecordConfig, on_record: Callable[[], None], data_dir: str):
        """Prepares a builder; `download_and_prepare` writes.

        Args:
          config: its name becomes a folder below `data_dir`.
          on_record: called after every record, for progress.
          data_dir: folder the data set is written to.
        """
        self._on_record = on_record
        super().__init__(config=config, data_dir=data_dir, file_format="array_record")

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        """Records of a split as `schema.to_record` makes them."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=features(), disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self.builder_config.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for position, record in enumerate(self.records(split)):
            yield position, record
            self._on_record()
