"""Building RefCOCO-M from its parquet files."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from data_pipelines.coco.photo_file import decode_photo, to_photo_record
from data_pipelines.coco.photos import PhotoPlan
from data_pipelines.manifest import DataManifest
from data_pipelines.photos.left_out import report_left_out
from data_pipelines.record_builder import RecordBuilder, RecordConfig
from data_pipelines.refcoco_m.rows import parquet_files, plan_row, read_rows
from data_pipelines.writing import write_data_set
from moonseg_jax.errors import UserError

SPLIT = "validation"
KNOWN = {"sentences": 5_598, "masks": 2_080, "images": 1_190}
NEEDS = "refcoco-m needs its parquet files (--from): https://huggingface.co/datasets/moondream/refcoco-m"


class RefCocoM(RecordBuilder):
    """Photos, phrases and masks as the parquet files hold them."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        plans: Sequence[PhotoPlan],
        left_out: Collection[int],
        files: Sequence[epath.Path],
        config: RecordConfig,
        on_record: Callable[[], None],
        data_dir: str,
    ):
        """Prepares a builder.

        Args:
          plans: one for every row, the first ones.
          left_out: positions of rows whose photo is missing or broken.
          files: the parquet files, in the order of the plans.
          config: see `RecordBuilder`.
          on_record: called after every record.
          data_dir: folder the data set is written to.
        """
        self._plans, self._left_out, self._files = plans, left_out, files
        super().__init__(config=config, on_record=on_record, data_dir=data_dir)

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        """Photos in the order of their rows."""
        rows = zip(self._plans, read_rows(self._files, ["image"]))
        for position, (plan, (place, row)) in enumerate(rows):
            if position not in self._left_out:
                yield to_photo_record(plan, *_photo(place, row, plan))


def _photo(place: str, row: dict[str, Any], plan: PhotoPlan) -> tuple[bytes, Any]:
    """The file of a row's photo and its pixels.

    Raises:
      UserError: there is none, or it is broken or of another size than the masks.
    """
    content = (row["image"] or {}).get("bytes")
    if not content:
        raise UserError(f"{place}: image: it holds no file")
    return content, decode_photo(content, plan.photo, place)


def build_refcoco_m(
    out: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str],
    limit: int | None = None,
    allow_missing: int = 0,
    partial: bool = False,
    progress: bool = True,
) -> DataManifest:
    """Writes the split `validation`.

    Args:
      out: folder, made if it does not exist.
      source: parquet file or the folder of several.
      limit: most photos, the first ones; None for all. The counts are then not compared.
      allow_missing: most photos that may be missing or broken; they are left out and listed.
      partial: the files are cut down on purpose; the counts are not compared.
      progress: show a bar on standard error, and what is needed.

    Raises:
      UserError: no pyarrow, no files, another schema, broken rows or photos, counts that differ from the known
        ones, or a folder that cannot be written or holds something else.
    """
    if limit is not None and limit < 1:
        raise UserError(f"refcoco-m: limit is {limit}; at least one photo is needed")
    if allow_missing < 0:
        raise UserError(f"refcoco-m: allow_missing is {allow_missing}; it must not be negative")
    if progress:
        print(NEEDS, file=sys.stderr)
    files = parquet_files(source)
    plans: list[PhotoPlan] = []
    broken: dict[int, str] = {}
    counts, digest = dict.fromkeys(KNOWN, 0), hashlib.sha256()
    for place, row in read_rows(files, ["image_id", "file_name", "samples", "image"]):
        plans.append(plan_row(place, row, counts["sentences"]))
        counts["sentences"] += len(plans[-1].phrases)
        counts["masks"] += len(row["samples"])
        counts["images"] += 1
        digest.update(repr({name: value for name, value in row.items() if name != "image"}).encode())
        try:
            _photo(place, row, plans[-1])
        except UserError as error:
            broken[len(plans) - 1] = str(error)
        if len(plans) == limit:
            break
    if limit is None and not partial and counts != KNOWN:
        raise UserError(f"refcoco-m is not complete: found {counts}, known are {KNOWN}; get all files or say --partial")
    if not plans:
        raise UserError(f"refcoco-m: {source} holds no rows")
    kept = [plan.photo.id for position, plan in enumerate(plans) if position not in broken]
    report_left_out(out, (), broken.values(), len(plans), allow_missing)
    if not kept:
        raise UserError(f"refcoco-m: no photo is left; every one of {source} is missing or broken")
    config = RecordConfig(name=f"refcoco_m_{digest.hexdigest()[:16]}", splits={SPLIT: len(kept)})
    manifest = DataManifest(
        name="refcoco-m",
        settings={"annotations": digest.hexdigest()[:16], "missing_images": len(broken)},
        splits=config.splits,
        path=f"ref_coco_m/{config.name}/{RefCocoM.VERSION}",
    )
    return write_data_set(
        out,
        manifest,
        lambda data_dir, on_record: RefCocoM(
            plans=plans, left_out=broken, files=files, config=config, on_record=on_record, data_dir=data_dir
        ),
        progress,
    )
