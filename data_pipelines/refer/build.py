"""Building RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO from the files of their authors."""

from __future__ import annotations

import os
import sys

from etils import epath

from data_pipelines.coco.annotations import read_annotations
from data_pipelines.manifest import DataManifest
from data_pipelines.photos.builder import ListedPhotos
from data_pipelines.photos.files import find_photos
from data_pipelines.photos.left_out import report_left_out
from data_pipelines.record_builder import RecordConfig
from data_pipelines.refer.known import expressions_file, refuse_other_counts, what_is_needed
from data_pipelines.refer.plans import plan_references
from data_pipelines.refer.refs import read_references
from data_pipelines.writing import write_data_set
from moonseg_jax.errors import UserError


def build_refer(
    name: str,
    out: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str],
    images: str | os.PathLike[str],
    split_by: str,
    limit: int | None = None,
    allow_missing: int = 0,
    partial: bool = False,
    progress: bool = True,
) -> DataManifest:
    """Writes all splits of a referring data set.

    Photos that are missing or broken are listed in `missing_images.txt`, expressions that cannot be examples in
    `refused_phrases.txt`, both in the folder of the data set.

    Args:
      name: refcoco, refcoco+, refcocog or grefcoco.
      out: folder, made if it does not exist.
      source: folder of the expressions and `instances.json`.
      images: folder of the photos, or of the folders that hold them.
      split_by: whose splits: unc, google or umd.
      limit: most photos of every split; None for all. The counts are then not compared.
      allow_missing: most photos that may be missing or broken; they are left out.
      partial: the files are cut down on purpose; the counts are not compared.
      progress: show bars on standard error, and what is needed.

    Raises:
      UserError: broken files, counts that differ from the known ones, too many photos missing, numbers out of
        range, or a folder that cannot be written or holds something else.
    """
    if limit is not None and limit < 1:
        raise UserError(f"{name}: limit is {limit}; at least one photo is needed")
    if allow_missing < 0:
        raise UserError(f"{name}: allow_missing is {allow_missing}; it must not be negative")
    file = expressions_file(name, split_by)
    if progress:
        print(what_is_needed(name, split_by), file=sys.stderr)
    folder = epath.Path(source)
    references = read_references(folder / file)
    if limit is None and not partial:
        refuse_other_counts(name, split_by, references.entries)
    annotations = read_annotations(folder / "instances.json")
    plan = plan_references(references, annotations, limit=limit)
    photos = find_photos(plan.splits, images, progress=progress)
    report_left_out(out, plan.refused, photos.missing.values(), photos.count, allow_missing)
    splits = {split: [one for one in plans if one.photo.id in photos.found] for split, plans in plan.splits.items()}
    splits = {split: plans for split, plans in splits.items() if plans}
    if not splits:
        raise UserError(f"{name}: no photo is left; every one of {images} is missing or broken")
    config = RecordConfig(
        name=f"{name.replace('+', '_plus')}_{split_by}_{references.digest}",
        splits={split: len(plans) for split, plans in splits.items()},
    )
    manifest = DataManifest(
        name=name,
        settings={
            "split_by": split_by, "expressions": references.digest, "annotations": annotations.digest,
            "missing_images": len(photos.missing), "refused_phrases": len(plan.refused),
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
