"""Image files → masks, on the host."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.images import decode_image

_BROWSERS_SHOW = ("image/png", "image/jpeg", "image/webp", "image/gif")


def read_mask(file: Path | bytes) -> tuple[Bool[np.ndarray, "height width"], int]:
    """Reads a greyscale image as a mask.

    With black and one other level, everything that is not black is foreground (so 0 and 1 will do). Otherwise
    foreground is what is brighter than half of the full scale, as of a mask with soft edges.

    Args:
      file: of 1, 8 or 16 bits, or what is in it; colour files only if they are grey, and nothing transparent.

    Returns:
      The mask, and how many grey levels the image has.

    Raises:
      UserError: no image, colours, transparency, or several levels that are all dark, as of a label map.
    """
    name = "mask" if isinstance(file, bytes) else f"mask {str(file)!r}"
    colours = decode_image(file)
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        if image.has_transparency_data and (np.asarray(image.convert("RGBA").getchannel("A")) < 255).any():
            raise UserError(f"{name} has transparent pixels; save it as a greyscale image, white on black")
        deep = image.mode.startswith("I;16")
        levels = np.asarray(image) if deep else colours[..., 0]
    if not deep and (colours != colours[..., :1]).any():
        raise UserError(f"{name} has colours; save it as a greyscale image, white on black")
    found = np.unique(levels)
    if len(found) == 1 or (len(found) == 2 and found[0] == 0):
        return levels != 0, len(found)
    mask = levels > np.iinfo(levels.dtype).max // 2
    if not mask.any():
        raise UserError(
            f"{name} has {len(found)} levels up to {found[-1]}, like a label map; save one label as 0 and 255"
        )
    return mask, len(found)


def photo_uri(file: Path, *, height: int, width: int) -> str:
    """A photo as a data URI, to be shown beneath a path.

    Args:
      file: a kind of image that browsers show.
      height: that it must have, in pixels, once turned as its EXIF orientation says, as browsers do.
      width: that it must have, in pixels.

    Raises:
      UserError: no image, of another kind, or of another size.
    """
    found = decode_image(file, orient=True).shape[:2]
    if found != (height, width):
        raise UserError(f"photo {str(file)!r} has {found[0]}x{found[1]} pixels (HxW), the mask {height}x{width}")
    with Image.open(file) as image:
        kind = image.get_format_mimetype()
    if kind not in _BROWSERS_SHOW:
        raise UserError(f"photo {str(file)!r} is {kind}; browsers show PNG, JPEG, WebP and GIF")
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
