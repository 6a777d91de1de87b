"""From a file to the crops the vision encoder sees: decoding, tiling, overlapping crops, stitching weights.

Everything here runs on the host. Letters: S side of a crop in pixels, g patches along a crop, C crops.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import struct
import zlib
from collections.abc import Iterable
from typing import Literal

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from moonseg_jax.config import VisionConfig
from moonseg_jax.errors import UserError

ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
Resampling = Literal["engine", "pillow"]

UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's decoders raise on broken files."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What an untrusted image may cost."""

    max_pixels: int = 64_000_000
    max_bytes: int = 64 * 2**20
    """Size of the encoded file."""


def decode_image(
    source: ImageSource, limits: ImageLimits | None = None, *, orient: bool = False
) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes an image to RGB; grey is repeated, an alpha channel dropped without blending.

    Args:
      source: path (also `gs://`), encoded bytes, Pillow image, or array uint8[H, W], [H, W, 1|3|4].
      limits: refused beyond these; the defaults when None.
      orient: turn the image as its EXIF tag says. Off for data sets: annotations refer to the stored pixels.

    Raises:
      UserError: missing file, not an image, broken image, too large, or an array of another kind.
    """
    limits = limits or ImageLimits()
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "image", limits, orient)
    if isinstance(source, bytes):
        content, name = source, f"image of {len(source)} bytes"
        if len(content) > limits.max_bytes:
            raise UserError(f"{name}: larger than the limit of {limits.max_bytes} bytes; shrink it first")
    elif isinstance(source, (str, os.PathLike)):
        content, name = _read(source, limits), f"image {os.fspath(source)!r}"
    else:
        raise UserError(
            f"image of type {type(source).__name__}: give a path, encoded bytes, a Pillow image or a uint8 array"
        )
    try:
        return _to_rgb(Image.open(io.BytesIO(content)), name, limits, orient)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: far more pixels than the limit of {limits.max_pixels}; shrink it first") from error
    except UNREADABLE as error:
        reason = f"{error}".partition("<")[0].strip() or type(error).__name__
        raise UserError(f"{name}: not a readable image ({reason}); give a PNG, JPEG, WebP, …") from error


def tile_counts(height: int, width: int, window: int, max_tiles: int) -> tuple[int, int]:
    """Rows and columns of tiles for an area of height x width pixels (moondream3 specification §3.2).

    Args:
      height: image height less the overlap on both sides.
      width: image width less the overlap on both sides.
      window: pixels a tile adds along each axis.
      max_tiles: most tiles in all.
    """
    if height <= window or width <= window:
        return 1, 1
    min_rows, min_cols = math.ceil(height / window), math.ceil(width / window)
    if min_rows * min_cols > max_tiles:
        ratio = math.sqrt(max_tiles / (min_rows * min_cols))
        return max(1, math.floor(min_rows * ratio)), max(1, math.floor(min_cols * ratio))
    rows = max(math.floor(math.sqrt(max_tiles * height / width)), min_rows)
    cols = max(math.floor(math.sqrt(max_tiles * width / height)), min_cols)
    if rows * cols > max_tiles:
        if cols > rows:
            cols = math.floor(max_tiles / rows)
        else:
            rows = math.floor(max_tiles / cols)
    return max(1, rows), max(1, cols)


def select_tiling(height: int, width: int, vision: VisionConfig) -> tuple[int, int]:
    """Rows and columns of the tiles, at most `max_tiles`, of an image of height x width pixels (specification §3.2).

    The official code cuts more from a long strip, such as 900 x 100 pixels; shapes are fixed here, so its long side
    gets `max_tiles`.
    """
    margins = 2 * vision.overlap_margin * vision.patch
    window = vision.crop - margins
    rows, cols = tile_counts(max(height - margins, 1), max(width - margins, 1), window, vision.max_tiles)
    return min(rows, vision.max_tiles), min(cols, vision.max_tiles)


def crops_needed(sizes: Iterable[tuple[int, int]], vision: VisionConfig) -> int:
    """Crops per image that a batch of images (height, width) needs: 1 if each fits one tile, else global and tiles."""
    return 1 if all(select_tiling(*size, vision) == (1, 1) for size in sizes) else 1 + vision.max_tiles


def overlapping_crops(
    image: UInt8[np.ndarray, "H W 3"], vision: VisionConfig, resampling: Resampling = "engine"
) -> tuple[UInt8[np.ndarray, "crops S S 3"], tuple[int, int]]:
    """The whole image as crop 0, then its overlapping tiles row-major (specification §3.3).

    Returns:
      The 1 + rows * cols crops and (rows, cols). A (1, 1) tiling gives two identical crops.
    """
    margins = 2 * vision.overlap_margin * vision.patch
    window, side = vision.crop - margins, vision.crop
    rows, cols = select_tiling(image.shape[0], image.shape[1], vision)
    overview = resize_lanczos(image, side, side, resampling)
    if (rows, cols) == (1, 1):
        return np.stack([overview, overview]), (1, 1)
    canvas = resize_lanczos(image, rows * window + margins, cols * window + margins, resampling)
    tiles = [
        canvas[window * i : window * i + side, window * j : window * j + side] for i in range(rows) for j in range(cols)
    ]
    return np.stack([overview, *tiles]), (rows, cols)


def stitching_weights(
    tiling: tuple[int, int], vision: VisionConfig, crops: int
) -> tuple[Float[np.ndarray, "C g g"], Float[np.ndarray, "C g g"]]:
    """Stitching of tile features and the adaptive average pool to g x g, as one separable weighting.

    Neighbouring tiles overlap by twice the margin and each keeps its inner part (specification §4):
    `pooled[k, l] = sum over c, a, b of rows[c, k, a] * cols[c, l, b] * features[c, a, b]`.
    Crop 0 (the whole image) has no weight, except where `crops` is 1: then a (1, 1) tiling is meant and
    crop 0 serves as the tile, to which it is identical.

    Raises:
      UserError: more tiles than `crops - 1`.
    """
    grid = vision.grid
    rows, cols = np.zeros((2, crops, grid, grid), np.float32)
    if crops == 1 and tiling == (1, 1):
        rows[0] = cols[0] = np.eye(grid)
        return rows, cols
    tiles = tiling[0] * tiling[1]
    if tiles >= crops:
        raise UserError(
            f"tiling {tiling[0]}x{tiling[1]} needs {tiles + 1} crops but the batch holds {crops}; "
            "raise the number of crops per image or lower vision.max_tiles"
        )
    along_rows, along_cols = (_axis_weights(tiles_along, vision) for tiles_along in tiling)
    rows[1 : tiles + 1] = np.repeat(along_rows, tiling[1], axis=0)
    cols[1 : tiles + 1] = np.tile(along_cols, (tiling[0], 1, 1))
    return rows, cols


def axis_stitching(tiles: int, vision: VisionConfig) -> Float[np.ndarray, "tiles length g"]:
    """Which patch of which tile covers each patch of the stitched axis, as zeros and ones (specification §4).

    Neighbouring tiles overlap by twice the margin; each keeps its inner part, the outermost their rims too.

    Args:
      tiles: along this axis.
      vision: sizes; the stitched axis has `tiles * (g - 2 * overlap_margin) + 2 * overlap_margin` patches.
    """
    grid, margin = vision.grid, vision.overlap_margin
    step = grid - 2 * margin
    stitch = np.zeros((tiles, tiles * step + 2 * margin, grid), np.float32)
    for tile in range(tiles):
        first = 0 if tile == 0 else margin
        last = grid if tile == tiles - 1 else grid - margin
        kept = np.arange(first, last)
        stitch[tile, tile * step + kept, kept] = 1.0
    return stitch


def pack_crops(
    image: UInt8[np.ndarray, "H W 3"], vision: VisionConfig, crops: int, resampling: Resampling = "engine"
) -> tuple[UInt8[np.ndarray, "C S S 3"], Float[np.ndarray, "C g g"], Float[np.ndarray, "C g g"]]:
    """Crops of one image padded to a static number, with their stitching weights.

    `crops = 1` asks for the whole image alone, whatever its size: it is then the only tile too.

    Returns:
      Crops (unused ones zero) and the weights along rows and columns of `stitching_weights`.

    Raises:
      UserError: the image needs more than `crops` crops and `crops` is not 1.
    """
    if crops == 1:
        overview = resize_lanczos(image, vision.crop, vision.crop, resampling)[None]
        return overview, *stitching_weights((1, 1), vision, 1)
    pixels, tiling = overlapping_crops(image, vision, resampling)
    rows, cols = stitching_weights(tiling, vision, crops)
    packed = np.zeros((crops, vision.crop, vision.crop, 3), np.uint8)
    packed[: len(pixels)] = pixels
    return packed, rows, cols


def resize_lanczos(
    image: UInt8[np.ndarray, "H W 3"], height: int, width: int, resampling: Resampling = "engine"
) -> UInt8[np.ndarray, "height width 3"]:
    """Antialiased Lanczos-3 resize; an image that already fits passes through untouched.

    `engine` follows the official engine (specification §3.5): an axis shrunk more than 2.5 times is first
    averaged over whole blocks, then the vertical pass comes before the horizontal one. `pillow` is Pillow's
    own order without averaging, as in the Hugging Face code.
    """
    if image.shape[:2] == (height, width):
        return image
    if resampling == "pillow":
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    image = _block_mean(image, height, width)
    turned = Image.fromarray(np.ascontiguousarray(image.transpose(1, 0, 2)))
    resized = turned.resize((height, width), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(resized).transpose(1, 0, 2))


def _block_mean(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrinks by whole factors where in / out > 2.5; the remainder at the far end is dropped."""
    down, across = (n // out if n > 2.5 * out else 1 for n, out in zip(image.shape[:2], (height, width)))
    if (down, across) == (1, 1):
        return image
    rows, cols = image.shape[0] // down, image.shape[1] // across
    blocks = image[: rows * down, : cols * across].reshape(rows, down, cols, across, 3)
    return (blocks.sum(axis=(1, 3), dtype=np.uint32) // (down * across)).astype(np.uint8)


def _axis_weights(tiles: int, vision: VisionConfig) -> np.ndarray:
    """Weights float32[tiles, g, g] from the rows of each tile to the g pooled rows."""
    stitch = axis_stitching(tiles, vision)
    grid, length = vision.grid, stitch.shape[1]
    pool = np.zeros((grid, length), np.float32)
    for cell in range(grid):
        start, stop = cell * length // grid, -(-(cell + 1) * length // grid)
        pool[cell, start:stop] = 1 / (stop - start)
    return np.einsum("kn,tna->tka", pool, stitch)


def _read(source: str | os.PathLike[str], limits: ImageLimits) -> bytes:
    path = epath.Path(source)
    try:
        size = path.stat().length
        if size > limits.max_bytes:
            raise UserError(
                f"image {os.fspath(source)!r}: {size} bytes, the limit is {limits.max_bytes}; shrink it first"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"image {os.fspath(source)!r}: no such file") from error
    except OSError as error:
        raise UserError(
            f"image {os.fspath(source)!r}: cannot be read ({error.strerror or error}); give the path of an image file"
        ) from error


def _to_rgb(image: Image.Image, name: str, limits: ImageLimits, orient: bool) -> np.ndarray:
    width, height = image.size
    _check_size(height, width, name, limits)
    if orient:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise UserError(f"{name}: pixels of mode {image.mode!r} have no fixed range; convert it to 8 bits first")
    return np.array(image.convert("RGB"))


def _from_array(array: np.ndarray, limits: ImageLimits) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UserError(
            f"image array of shape {array.shape} and type {array.dtype}: expected uint8[H, W] or uint8[H, W, 1|3|4]"
        )
    _check_size(array.shape[0], array.shape[1], f"image array of shape {array.shape}", limits)
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array[..., :3])


def _check_size(height: int, width: int, name: str, limits: ImageLimits) -> None:
    if height < 1 or width < 1:
        raise UserError(f"{name}: {width}x{height} pixels, there is nothing in it")
    if height * width > limits.max_pixels:
        raise UserError(f"{name}: {width}x{height} pixels, the limit is {limits.max_pixels} pixels; shrink it first")
