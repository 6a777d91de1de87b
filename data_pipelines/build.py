"""Building the embedded shapes."""

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
