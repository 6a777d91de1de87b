"""The TFDS builder of photos whose files were looked up by image id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from data_pipelines.coco.photo_file import photo_record
from data_pipelines.coco.photos import PhotoPlan
from data_pipelines.record_builder import RecordBuilder, RecordConfig


class ListedPhotos(RecordBuilder):
    """Photos with phrases and targets as planned."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        plans: Mapping[str, Sequence[PhotoPlan]],
        files: Mapping[int, epath.Path],
        config: RecordConfig,
        on_record: Callable[[], None],
        data_dir: str,
    ):
        """Prepares a builder.

        Args:
          plans: photos per split.
          files: image id to file.
          config: see `RecordBuilder`.
          on_record: called after every record.
          data_dir: folder the data set is written to.
        """
        self._plans, self._files = plans, files
        super().__init__(config=config, on_record=on_record, data_dir=data_dir)

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        """Photos of a split in the order of their plans."""
        for plan in self._plans[split]:
            yield photo_record(plan, self._files[plan.photo.id])
