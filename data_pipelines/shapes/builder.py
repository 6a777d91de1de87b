"""The TFDS builder of the shapes data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.record_builder import RecordBuilder, RecordConfig
from data_pipelines.schema import to_record
from data_pipelines.shapes.scene import generate_scene


@dataclasses.dataclass(kw_only=True)
class ShapesConfig(RecordConfig):
    """What fixes the content of the data set, next to the number of scenes per split."""

    seed: int
    level: int


class Shapes(RecordBuilder):
    """Procedural scenes with referring expressions."""

    VERSION = tfds.core.Version("1.0.0")

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        """Scenes of a split in the order of their index."""
        config = self.builder_config
        for index in range(config.splits[split]):
            yield to_record(generate_scene(config.seed, index, config.level, split))
