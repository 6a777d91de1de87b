"""Building data sets of COCO instances."""

from __future__ import annotations

import os
import sys

from data_pipelines.coco.annotations import read_annotations
from data_pipelines.coco.photos import plan_photos
from data_pipelines.manifest import DataManifest
from data_pipelines.photos.builder import ListedPhotos
from data_pipelines.photos.files import find_photos
from data_pipelines.photos.left_out import report_left_out
from data_pipelines.record_builder import RecordConfig
from data_pipelines.writing import write_data_set
from moonseg_jax.errors import UserError

NEEDS = (
    "coco needs an instances file (--annotations) and its photos (--images): instances_train2017.json and train2017,\n"
    "or those of val2017, from https://cocodataset.org/#download."
)


def build_coco(
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    val: int = 0,
    limit: int | None = None,
    min_area: float = 0.0,
    positional: bool = False,
    allow_missing: int = 0,
    progress: bool = True,
) -> DataManifest:
    """Writes photos with COCO annotations; a category's name is the phrase where the photo holds it once.

    Args:
      out: folder, made if it does not exist.
      images: folder of the photos.
      annotations: COCO instances JSON.
      val: photos of the split `val`, the last ones; all others are `train`. With 0 there is no `val`.
      limit: most photos, the first ones that have a phrase; None for all.
      min_area: smallest target, as a share of the photo's area.
      positional: categories that a photo holds several times get phrases of place where their order is clear.
      allow_missing: most photos that may be missing or broken; they are left out and listed.
      progress: show bars on standard error, and what is needed.

    Raises:
      UserError: broken annotations, missing or broken photos, nothing left to build, numbers out of range, or
        a folder that cannot be written or holds something else.
    """
    if limit is not None and limit < 1:
        raise UserError(f"coco: limit is {limit}; at least one photo is needed")
    if not 0 <= min_area < 1:
        raise UserError(f"coco: min_area is {min_area}; it is a share of the photo, from 0 to below 1")
    if allow_missing < 0:
        raise UserError(f"coco: allow_missing is {allow_missing}; it must not be negative")
    if progress:
        print(NEEDS, file=sys.stderr)
    read = read_annotations(annotations)
    plans = plan_photos(read, limit=limit, min_area=min_area, positional=positional)
    photos = find_photos({"all": plans}, images, progress=progress)
    report_left_out(out, (), photos.missing.values(), photos.count, allow_missing)
    plans = [plan for plan in plans if plan.photo.id in photos.found]
    if not plans:
        raise UserError(f"coco: no photo is left; every one of {images} is missing or broken")
    if not 0 <= val < len(plans):
        raise UserError(f"coco: val is {val}, but only {len(plans)} photos have a phrase; leave some for training")
    splits = {"train": plans[: len(plans) - val]} | ({"val": plans[-val:]} if val else {})
    config = RecordConfig(name=f"photos_{read.digest}", splits={split: len(part) for split, part in splits.items()})
    manifest = DataManifest(
        name="coco",
        settings={
            "annotations": read.digest, "min_area": f"{min_area:g}", "positional": int(positional),
            "missing_images": len(photos.missing),
        },
        splits=config.splits,
        path=f"listed_photos/{config.name}/{ListedPhotos.VERSION}",
    )  # fmt: skip
    return write_data_set(
        out,
        manifest,
        lambda data_dir, on_record: ListedPhotos(
            plans=splits, files=photos.found, config=config, on_record=on_record, data_dir=data_dir
        ),
        progress,
    )
