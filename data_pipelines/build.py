"""Building data sets: the embedded shapes, and COCO photos."""

from __future__ import annotations

import os

from data_pipelines.manifest import DataManifest
from data_pipelines.shapes.levels import level_settings
from data_pipelines.writing import write_data_set
from moonseg_jax.errors import UserError


def build_shapes(
    out: str | os.PathLike[str],
    *,
    train: int = 20_000,
    val: int = 1_000,
    val_unseen: int | None = None,
    seed: int = 0,
    level: int = 2,
    progress: bool = True,
) -> DataManifest:
    """Writes the shapes data, or returns at once where exactly these scenes are already there.

    Args:
      out: folder, made if it does not exist.
      train: scenes of the split `train`.
      val: scenes of `val`, whose colour and kind pairs also occur in training.
      val_unseen: scenes of `val_unseen`, whose targets are held-out pairs; as many as `val` if None.
      seed: of all scenes.
      level: difficulty, 1 to 4.
      progress: show a bar on standard error.

    Raises:
      UserError: for numbers out of range, a folder that cannot be written or holds something else.
    """
    from data_pipelines.shapes.builder import Shapes, ShapesConfig

    splits = {"train": train, "val": val, "val_unseen": val if val_unseen is None else val_unseen}
    for split, count in splits.items():
        if count < 1:
            raise UserError(f"shapes: {split} is {count}; a split needs at least one scene")
    if seed < 0:
        raise UserError(f"shapes: seed is {seed}; it must not be negative")
    level_settings(level)
    config = ShapesConfig(name=f"level{level}_seed{seed}", splits=splits, seed=seed, level=level)
    manifest = DataManifest(
        name="shapes",
        settings={"seed": seed, "level": level},
        splits=splits,
        path=f"shapes/{config.name}/{Shapes.VERSION}",
    )
    return write_data_set(
        out,
        manifest,
        lambda data_dir, on_record: Shapes(config=config, on_record=on_record, data_dir=data_dir),
        progress,
    )


def build_coco(
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    val: int = 0,
    limit: int | None = None,
    min_area: float = 0.0,
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
      progress: show a bar on standard error.

    Raises:
      UserError: broken annotations, missing or broken photos, nothing left to build, numbers out of range, or
        a folder that cannot be written or holds something else.
    """
    from data_pipelines.coco.annotations import read_annotations
    from data_pipelines.coco.builder import CocoPhotos, refuse_missing
    from data_pipelines.coco.photos import plan_photos
    from data_pipelines.record_builder import RecordConfig

    if limit is not None and limit < 1:
        raise UserError(f"coco: limit is {limit}; at least one photo is needed")
    if not 0 <= min_area < 1:
        raise UserError(f"coco: min_area is {min_area}; it is a share of the photo, from 0 to below 1")
    read = read_annotations(annotations)
    plans = plan_photos(read, limit=limit, min_area=min_area)
    if not 0 <= val < len(plans):
        raise UserError(f"coco: val is {val}, but only {len(plans)} photos have a phrase; leave some for training")
    refuse_missing(plans, images)
    splits = {"train": plans[: len(plans) - val]} | ({"val": plans[-val:]} if val else {})
    config = RecordConfig(name=f"photos_{read.digest}", splits={split: len(part) for split, part in splits.items()})
    manifest = DataManifest(
        name="coco",
        settings={"annotations": read.digest, "min_area": f"{min_area:g}"},
        splits=config.splits,
        path=f"coco_photos/{config.name}/{CocoPhotos.VERSION}",
    )
    return write_data_set(
        out,
        manifest,
        lambda data_dir, on_record: CocoPhotos(
            plans=splits, images=images, config=config, on_record=on_record, data_dir=data_dir
        ),
        progress,
    )
