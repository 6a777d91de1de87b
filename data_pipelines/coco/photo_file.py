"""The file of a photo: its pixels, checked, and the record of it."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.coco.annotations import PhotoEntry
from data_pipelines.coco.photos import PhotoPlan
from data_pipelines.schema import to_record
from moonseg_jax.errors import UserError
from moonseg_jax.images import decode_image
from moonseg_jax.types import Example, Scene

ORIENTATION_TAG = 0x0112


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
