"""Which photos and phrases of several data sets a training set may hold."""

from __future__ import annotations

import collections
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence

import rich.progress
from etils import epath
from PIL import Image
from rich.console import Console

from data_pipelines.manifest import read_manifest
from data_pipelines.source import SceneSource, open_split
from moonseg_jax.errors import UserError

TRAIN = "train"
"""The only split that is learned from; all others are for judging."""
OTHER_IDS = ("shapes",)
"""Data sets whose image ids are not COCO's."""

Place = tuple[int, int]
"""Number of a data set, and of a scene in its training split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnionPlan:
    """Places of photos, and what was left out."""

    sources: tuple[SceneSource | None, ...]
    """Training splits of the data sets; None where one has none."""
    records: tuple[tuple[Place, ...], ...]
    """A record each: the places that one photo has."""
    held_out: Mapping[int, str]
    """Image id: where it is judged, the first such split."""
    removed: Mapping[str, int]
    """"DATA train, judged in DATA SPLIT": photos that were left out."""
    apart: int
    """Photos that stay in several records because their files differ in size."""


def plan_union(folders: Sequence[str | os.PathLike[str]], *, progress: bool) -> UnionPlan:
    """Finds the photos of all training splits that no other split of any of the data sets holds.

    A photo is known by its COCO image id, so that RefCOCO's photo of 2014 and LVIS's of 2017 are one.

    Args:
      folders: of built data sets, each once.
      progress: show a bar on standard error.

    Raises:
      UserError: a folder holds no finished data set, or one whose ids are not COCO's; nothing is left to learn from.
    """
    if len({os.path.realpath(os.fspath(folder)) for folder in folders}) < len(folders):
        raise UserError("union: a data set is named twice; name each once")
    splits = [_splits_of(folder) for folder in folders]
    held_out: dict[int, str] = {}
    for folder, of_set in zip(folders, splits):
        for split, source in of_set.items():
            if split != TRAIN:
                for number in source.image_ids():
                    held_out.setdefault(number, f"{os.fspath(folder)} {split}")
    removed: collections.Counter[str] = collections.Counter()
    places: dict[int, list[Place]] = {}
    for number, (folder, of_set) in enumerate(zip(folders, splits)):
        for scene, image in enumerate(of_set[TRAIN].image_ids() if TRAIN in of_set else ()):
            if image in held_out:
                removed[f"{os.fspath(folder)} {TRAIN}, judged in {held_out[image]}"] += 1
            else:
                places.setdefault(image, []).append((number, scene))
    sources = tuple(of_set.get(TRAIN) for of_set in splits)
    if not places:
        named = ", ".join(os.fspath(folder) for folder in folders)
        raise UserError(f"union of {named}: no photo is left to learn from; every one is judged somewhere")
    records: list[tuple[Place, ...]] = []
    apart = 0
    console = Console(stderr=True)
    bar = rich.progress.track(places.values(), "photos compared", console=console, disable=not progress)
    for of_photo in bar:
        groups = _of_one_size(sources, of_photo)
        records += groups
        apart += len(groups) > 1
    return UnionPlan(
        sources=sources, records=tuple(records), held_out=held_out, removed=dict(removed), apart=apart
    )  # fmt: skip


def _splits_of(folder: str | os.PathLike[str]) -> dict[str, SceneSource]:
    manifest = read_manifest(epath.Path(folder))
    if manifest is not None and manifest.name in OTHER_IDS:
        raise UserError(
            f"{folder}: {manifest.name} has scenes of its own; a union is of photos, which are known by COCO's ids"
        )
    names = [TRAIN] if manifest is None else list(manifest.splits)
    return {split: open_split(folder, split) for split in names}


def _of_one_size(sources: Sequence[SceneSource | None], places: Sequence[Place]) -> list[tuple[Place, ...]]:
    """The places of one photo, grouped by the size of its file there: masks fit their own file only."""
    if len(places) == 1:
        return [tuple(places)]
    groups: dict[tuple[int, int], list[Place]] = {}
    for number, scene in places:
        source = sources[number]
        assert source is not None, "places are in training splits that exist"
        with Image.open(io.BytesIO(source.record(scene)["image"])) as image:
            groups.setdefault(image.size, []).append((number, scene))
    return [tuple(group) for group in groups.values()]
