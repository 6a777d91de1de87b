"""The TFDS builder of COCO photos."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.coco.annotations import PhotoEntry
from data_pipelines.coco.photos import PhotoPlan
from data_pipelines.record_builder import RecordBuilder, RecordConfig
from data_pipelines.schema import to_record
from moonseg_jax.errors import UserError
from moonseg_jax.images import decode_image
from moonseg_jax.types import Example, Scene

MISSING_SHOWN = 10
ORIENTATION_TAG = 0x0112


class CocoPhotos(RecordBuilder):
    """Photos whose phrases are the categories they hold once."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        plans: Mapping[str, Sequence[PhotoPlan]],
        images: str | os.PathLike[str],
        config: RecordConfig,
        on_record: Callable[[], None],
        data_dir: str,
    ):
        """Prepares a builder.

        Args:
          plans: photos per split.
          images: folder of the photos.
          config: see `RecordBuilder`.
          on_record: called after every record.
          data_dir: folder the data set is written to.
        """
        self._plans, self._images = plans, epath.Path(images)
        super().__init__(config=config, on_record=on_record, data_dir=data_dir)

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        """Photos of a split in the order of their plans."""
        for plan in self._plans[split]:
            yield photo_record(plan, self._images / plan.photo.file_name)


def refuse_missing(plans: Sequence[PhotoPlan], images: str | os.PathLike[str]) -> None:
    """Checks that every photo is there before anything is written.

    Raises:
      UserError: the folder or photos are missing; lists them.
    """
    folder = epath.Path(images)
    if not folder.is_dir():
        raise UserError(f"images {images}: no such folder")
    there = {path.name for path in folder.iterdir()}
    missing = [plan.photo.file_name for plan in plans if plan.photo.file_name not in there]
    # Names may hold folders of their own; only those that the listing cannot answer are asked for one by one.
    missing = [name for name in missing if "/" not in name or not (folder / name).exists()]
    if missing:
        shown = ", ".join(missing[:MISSING_SHOWN])
        more = f" and {len(missing) - MISSING_SHOWN} more" if len(missing) > MISSING_SHOWN else ""
        raise UserError(
            f"images {images}: {len(missing)} of {len(plans)} photos are missing: {shown}{more}; "
            "name the folder the annotations were made for"
        )


def photo_record(plan: PhotoPlan, file: epath.Path) -> dict[str, Any]:
    """The record of one photo; the file is kept as it is where any decoder reads the same pixels from it.

    Raises:
      UserError: not an image, or not of the size the annotations say.
    """
    return to_photo_record(plan, *read_photo(plan.photo, file))


def to_photo_record(plan: PhotoPlan, content: bytes, pixels: UInt8[np.ndarray, "H W 3"]) -> dict[str, Any]:
    """The record of one photo from its file and what it decodes to."""
    scene = Scene(
        examples=tuple(
            Example(
                image=pixels, phrase=phrase.phrase, target=phrase.target, image_id=plan.photo.id,
                example_id=phrase.example_id,
            )
            for phrase in plan.phrases
        )
    )  # fmt: skip
    return to_record(scene, content if _is_plain(content) else None)


def read_photo(photo: PhotoEntry, file: epath.Path) -> tuple[bytes, UInt8[np.ndarray, "H W 3"]]:
    """The file of a photo and its pixels.

    Raises:
      UserError: not an image, too large, or not of the size the annotations say.
    """
    content = file.read_bytes()
    return content, decode_photo(content, photo, os.fspath(file))


def decode_photo(content: bytes, photo: PhotoEntry, place: str) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a photo's file.

    Raises:
      UserError: not an image, too large, or not of the size the annotations say.
    """
    try:
        pixels = decode_image(content)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    size = (photo.height, photo.width)
    if pixels.shape[:2] != size:
        raise UserError(
            f"image {place}: {pixels.shape[1]}x{pixels.shape[0]} pixels, its annotations say "
            f"{size[1]}x{size[0]}; masks would not fit"
        )
    return pixels


def _is_plain(content: bytes) -> bool:
    """A JPEG or PNG in RGB or grey, without an orientation that some decoders apply and others do not."""
    with Image.open(io.BytesIO(content)) as image:
        upright = image.getexif().get(ORIENTATION_TAG, 1) == 1
        return upright and image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L")
