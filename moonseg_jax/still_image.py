"""One picture to answer about: anything that `images.decode_image` reads, but no animation."""

from __future__ import annotations

import io
import os

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.images import UNREADABLE, ImageSource, decode_image

SEVERAL_MEAN_ONE = ("MPO",)
"""Photos with further views of the same picture (depth, previews): the first one is the photo."""


def decode_still(source: ImageSource) -> UInt8[np.ndarray, "H W 3"]:
    """The picture in RGB, turned as its EXIF orientation says.

    Args:
      source: path (also `gs://`), encoded bytes, Pillow image (its current frame), or uint8 array.

    Raises:
      UserError: see `decode_image`; or a file with several frames or pages, of which none is the picture.
    """
    pixels = decode_image(source, orient=True)
    if isinstance(source, (str, os.PathLike, bytes)):
        _require_one_frame(source)
    return pixels


def _require_one_frame(source: str | os.PathLike[str] | bytes) -> None:
    content = source if isinstance(source, bytes) else epath.Path(source).read_bytes()
    name = f"image of {len(source)} bytes" if isinstance(source, bytes) else f"image {os.fspath(source)!r}"
    with Image.open(io.BytesIO(content)) as image:
        if image.format in SEVERAL_MEAN_ONE:
            return
        try:
            image.seek(1)
        except UNREADABLE:
            return
    raise UserError(f"{name}: an animation or several pages; save the one you mean as a PNG")
