"""Ground truths to score against, from a data set's own files or a folder that `moonseg data build` made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from data_pipelines.coco.annotations import read_annotations
from data_pipelines.coco.photos import run_lengths
from data_pipelines.lvis.annotations import read_lvis
from data_pipelines.manifest import FILE_NAME
from data_pipelines.refer.known import DEFAULT_SPLIT_BY, expressions_file
from data_pipelines.refer.plans import plan_references
from data_pipelines.refer.refs import read_references
from data_pipelines.source import open_split
from moonseg_jax.errors import UserError
from moonseg_jax.mask_scoring.keys import Key, id_key, pair_key, said_key

LVIS_FIELD = "not_exhaustive_category_ids"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """One sample."""

    id: str
    keys: tuple[Key, ...]
    """What a prediction may call it by."""
    phrase: str
    height: int
    width: int
    target: dict[str, Any] | None
    """COCO run-length encoding; None for a phrase without target."""
    category: int | None = None
    """LVIS: the class that means are taken over."""

    def mask(self) -> Bool[np.ndarray, "H W"]:
        """The target's pixels."""
        if self.target is None:
            return np.zeros((self.height, self.width), bool)
        return coco_mask.decode(self.target) > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truths:
    """All samples of a split."""

    described: str
    """What they are, in words."""
    samples: tuple[Truth, ...]
    left_out: tuple[str, ...] = ()
    """A line for everything in the files that is no sample."""


def read_truths(
    annotations: Path, *, dataset: str | None, split: str | None, split_by: str | None, instances: bool
) -> Truths:
    """Reads the samples of a split.

    Args:
      annotations: a COCO instances file (samples are annotations that are no crowd), an LVIS file (samples are pairs
        of image and category), a folder of a built data set, or a folder of expressions and instances.json.
      dataset: which data set the folder of expressions is of.
      split: of folders.
      split_by: of folders of expressions: whose splits; None takes the usual ones.
      instances: of LVIS files: every annotation is a sample.

    Raises:
      UserError: something is missing, not what it should be, or named for no purpose.
    """
    if not annotations.exists():
        raise UserError(f"annotations {annotations}: no such file or folder")
    if annotations.is_dir():
        if split is None:
            raise UserError(f"annotations {annotations}: a folder has splits; name one with --split")
        if (annotations / FILE_NAME).is_file():
            return _of_built(annotations, split)
        if dataset is None:
            raise UserError(
                f"annotations {annotations}: no folder that `moonseg data build` made; if it holds expressions and "
                f"instances.json, say of which data set: --dataset {'|'.join(DEFAULT_SPLIT_BY)}"
            )
        return _of_expressions(annotations, dataset, split, split_by)
    if dataset is not None or split is not None:
        raise UserError(f"annotations {annotations}: --dataset and --split are for folders; a file is scored whole")
    return _of_lvis(annotations, instances) if _is_lvis(annotations) else _of_coco(annotations)


def _of_built(folder: Path, split: str) -> Truths:
    source = open_split(folder, split)

    def samples() -> Iterator[Truth]:
        for number in range(len(source)):
            for example in source[number].examples:
                height, width = example.image.shape[:2]
                yield Truth(
                    id=str(example.example_id), keys=(id_key(example.example_id),), phrase=example.phrase,
                    height=height, width=width, target=example.target,
                )  # fmt: skip

    return Truths(described=f"{source.manifest.name}, split {split}", samples=tuple(samples()))


def _of_expressions(folder: Path, dataset: str, split: str, split_by: str | None) -> Truths:
    split_by = split_by or DEFAULT_SPLIT_BY[dataset]
    references = read_references(epath.Path(folder) / expressions_file(dataset, split_by))
    plan = plan_references(references, read_annotations(folder / "instances.json"), limit=None)
    if split not in plan.splits:
        raise UserError(f"annotations {folder}: {dataset} ({split_by}) has no split {split!r}; it has "
                        + ", ".join(sorted(plan.splits)))  # fmt: skip
    # As in a built data set, the id of a sample is its position among all sentences of the file.
    spoken = [(entry, sentence) for entry in references.entries for sentence in entry.sentences]

    def samples() -> Iterator[Truth]:
        for photo in plan.splits[split]:
            for said in photo.phrases:
                entry, sentence = spoken[said.example_id]
                yield Truth(
                    id=str(said.example_id), phrase=said.phrase, height=photo.photo.height, width=photo.photo.width,
                    keys=(id_key(said.example_id), said_key(entry.annotation_ids, entry.image_id, sentence.text)),
                    target=said.target,
                )  # fmt: skip

    return Truths(
        described=f"{dataset} ({split_by}), split {split}", samples=tuple(samples()), left_out=plan.refused
    )  # fmt: skip


def _of_coco(file: Path) -> Truths:
    found = read_annotations(file)
    photos = {photo.id: photo for photo in found.photos}
    crowds = tuple(f"annotation {one.id} is a crowd" for one in found.instances if one.is_crowd)
    samples = tuple(
        Truth(
            id=str(one.id), keys=(id_key(one.id),), phrase=found.categories[one.category_id],
            height=photos[one.image_id].height, width=photos[one.image_id].width,
            target=run_lengths(one, photos[one.image_id], found.file), category=None,
        )
        for one in found.instances
        if not one.is_crowd
    )  # fmt: skip
    return Truths(described=f"COCO instances of {file.name}", samples=samples, left_out=crowds)


def _of_lvis(file: Path, instances: bool) -> Truths:
    found = read_lvis(file)
    photos = {photo.id: photo for photo in found.coco.photos}
    groups: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    left_out = []
    for one in found.coco.instances:
        if one.category_id in found.not_exhaustive[one.image_id]:
            left_out.append(f"annotation {one.id}: image {one.image_id} does not annotate its category exhaustively")
            continue
        mask = run_lengths(one, photos[one.image_id], found.coco.file)
        groups.setdefault((one.image_id, one.category_id, one.id if instances else 0), []).append(mask)
    samples = []
    for (image, category, annotation), masks in groups.items():
        key = id_key(annotation) if instances else pair_key(image, category)
        samples.append(
            Truth(
                id=str(annotation) if instances else f"{image}/{category}", keys=(key,),
                phrase=found.coco.categories[category], height=photos[image].height, width=photos[image].width,
                target=coco_mask.merge(masks), category=category,
            )
        )  # fmt: skip
    kind = "instances" if instances else "pairs of image and category"
    return Truths(described=f"LVIS {kind} of {file.name}", samples=tuple(samples), left_out=tuple(left_out))


def _is_lvis(file: Path) -> bool:
    """Whether the first image of a JSON file says which categories it does not annotate exhaustively."""
    try:
        images = json.loads(file.read_bytes()).get("images") or [{}]
        return LVIS_FIELD in images[0]
    except (OSError, ValueError, AttributeError, TypeError, KeyError, IndexError):
        return False  # What is wrong with the file is said by whoever reads it.
