"""Building LVIS data sets."""

from __future__ import annotations

import os
import sys

from data_pipelines.lvis.annotations import read_lvis
from data_pipelines.lvis.plans import plan_lvis
from data_pipelines.manifest import DataManifest
from data_pipelines.photos.builder import ListedPhotos
from data_pipelines.photos.files import find_photos
from data_pipelines.photos.left_out import report_left_out
from data_pipelines.record_builder import RecordConfig
from data_pipelines.writing import write_data_set
from moonseg_jax.errors import UserError

NEEDS = (
    "lvis needs lvis_v1_val.json, lvis_v1_train.json or a file of v0.5 (--from; https://www.lvisdataset.org/dataset)\n"
    "and the photos of COCO (--images; train2017 and val2017: https://cocodataset.org/#download)."
)


def build_lvis(
    out: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str],
    images: str | os.PathLike[str],
    split: str = "val",
    instances: bool = False,
    limit: int | None = None,
    allow_missing: int = 0,
    progress: bool = True,
) -> DataManifest:
    """Writes photos with LVIS categories as phrases; see `plan_lvis`.

    Args:
      out: folder, made if it does not exist.
      source: LVIS file, v0.5 or v1.
      images: folder of the photos, or of the folders that hold them.
      split: name of the one split: train or val.
      instances: an example per instance instead of one per category.
      limit: most photos; None for all.
      allow_missing: most photos that may be missing or broken; they are left out.
      progress: show bars on standard error, and what is needed.

    Raises:
      UserError: a broken file, too many photos missing, numbers out of range, or a folder that cannot be written or
        holds something else.
    """
    if limit is not None and limit < 1:
        raise UserError(f"lvis: limit is {limit}; at least one photo is needed")
    if allow_missing < 0:
        raise UserError(f"lvis: allow_missing is {allow_missing}; it must not be negative")
    if progress:
        print(NEEDS, file=sys.stderr)
    annotations = read_lvis(source)
    plans, refused = plan_lvis(annotations, instances=instances, limit=limit)
    photos = find_photos({split: plans}, images, progress=progress)
    report_left_out(out, refused, photos.missing.values(), photos.count, allow_missing)
    plans = [plan for plan in plans if plan.photo.id in photos.found]
    if not plans:
        raise UserError(f"lvis: no photo is left; every one of {images} is missing or broken")
    variant = "instances" if instances else "categories"
    config = RecordConfig(name=f"lvis_{variant}_{annotations.coco.digest}", splits={split: len(plans)})
    manifest = DataManifest(
        name="lvis",
        settings={
            "annotations": annotations.coco.digest, "variant": variant, "missing_images": len(photos.missing),
            "refused_phrases": len(refused),
        },
        splits=config.splits,
        path=f"listed_photos/{config.name}/{ListedPhotos.VERSION}",
    )  # fmt: skip
    return write_data_set(
        out,
        manifest,
        lambda data_dir, on_record: ListedPhotos(
            plans={split: plans}, files=photos.found, config=config, on_record=on_record, data_dir=data_dir
        ),
        progress,
    )
