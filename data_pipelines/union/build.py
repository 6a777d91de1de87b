"""Building a training set of several data sets."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from data_pipelines.manifest import DataManifest, read_manifest
from data_pipelines.record_builder import RecordBuilder, RecordConfig
from data_pipelines.schema import merged_record
from data_pipelines.source import SceneSource, open_split
from data_pipelines.union.plan import TRAIN, UnionPlan, plan_union
from data_pipelines.writing import write_data_set
from moonseg_jax.errors import UserError

VAL = "val"


class UnionOfPhotos(RecordBuilder):
    """Photos of several data sets, each with the phrases of all."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        plan: UnionPlan,
        val: SceneSource | None,
        config: RecordConfig,
        on_record: Callable[[], None],
        data_dir: str,
    ):
        """Prepares a builder.

        Args:
          plan: what `train` holds.
          val: what `val` holds, as it is; None for no such split.
          config: see `RecordBuilder`.
          on_record: called after every record.
          data_dir: folder the data set is written to.
        """
        self._plan, self._val = plan, val
        super().__init__(config=config, on_record=on_record, data_dir=data_dir)

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        """Records of a split; examples are numbered anew, over both splits."""
        first = 0
        for rows in self._train():
            record = merged_record(rows, first)
            first += len(record["examples"])
            if split == TRAIN:
                yield record
        if split == VAL:
            assert self._val is not None, "there is a split val only where one was given"
            for scene in range(len(self._val)):
                record = merged_record([self._val.record(scene)], first)
                first += len(record["examples"])
                yield record

    def _train(self) -> Iterator[list[dict[str, Any]]]:
        for places in self._plan.records:
            rows = []
            for number, scene in places:
                source = self._plan.sources[number]
                assert source is not None, "places are in training splits that exist"
                rows.append(source.record(scene))
            yield rows


def build_union(
    out: str | os.PathLike[str],
    *,
    sources: Sequence[str | os.PathLike[str]],
    val_from: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> DataManifest:
    """Writes the union of training splits, without any photo of any other split; asserts it on what was written.

    Args:
      out: folder, made if it does not exist.
      sources: folders of built data sets of COCO photos.
      val_from: a data set whose split `val` becomes that of the union, to be judged on while training.
      progress: show bars and what was left out on standard error.

    Raises:
      UserError: a folder holds no finished data set of photos, nothing is left to learn from, the folder cannot be
        written or holds something else, or a photo that is judged was written after all.
    """
    plan = plan_union(sources, progress=progress)
    val = None if val_from is None else open_split(val_from, VAL)
    if val is not None and val.manifest not in [_manifest(source) for source in sources]:
        raise UserError(f"--val-from {val_from}: must be one of the data sets of the union, or its photos might leak")
    parts = [_manifest(source) for source in sources]
    digest = hashlib.sha256(repr(parts + ([val.manifest] if val else [])).encode()).hexdigest()[:16]
    splits = {TRAIN: len(plan.records)} | ({VAL: len(val)} if val is not None else {})
    config = RecordConfig(name=f"union_{digest}", splits=splits)
    manifest = DataManifest(
        name="union",
        settings={
            "of": " ".join(part.name for part in parts), "digest": digest, "held_out_photos": len(plan.held_out),
            "removed": sum(plan.removed.values()), "photos_of_several_sizes": plan.apart,
        },
        splits=config.splits,
        path=f"union_of_photos/{config.name}/{UnionOfPhotos.VERSION}",
    )  # fmt: skip
    if progress:
        for what, count in plan.removed.items():
            print(f"left out: {count} photos of {what}", file=sys.stderr)
    written = write_data_set(
        out,
        manifest,
        lambda data_dir, on_record: UnionOfPhotos(
            plan=plan, val=val, config=config, on_record=on_record, data_dir=data_dir
        ),
        progress,
    )
    refuse_leaks(out, plan)
    return written


def refuse_leaks(out: str | os.PathLike[str], plan: UnionPlan) -> None:
    """Reads the written training split again.

    Raises:
      UserError: it holds a photo that is judged somewhere.
    """
    leaked = [number for number in open_split(out, TRAIN).image_ids() if number in plan.held_out]
    if leaked:
        raise UserError(
            f"{epath.Path(out)}: {len(leaked)} photos of the training split are judged elsewhere, the first is "
            f"{leaked[0]} of {plan.held_out[leaked[0]]}; do not train on it, and report this"
        )


def _manifest(folder: str | os.PathLike[str]) -> DataManifest:
    manifest = read_manifest(epath.Path(folder))
    assert manifest is not None, "plan_union has read it"
    return manifest
