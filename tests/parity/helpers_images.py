"""Tiling, crops, stitching, resizing and activations with our code."""

import cv2
import jax
import numpy as np
from helpers_fixture import Arrays, HelpersFixture, Records, tiling_sizes

from moonseg_jax import images
from moonseg_jax.refine import to_rectangle


def tilings(fixture: HelpersFixture) -> Records:
    """Rows and columns of tiles for (height, width, window, most tiles)."""
    cases = fixture.recorded["select_tiling"]["cases"]
    return {"select_tiling": {"cases": cases, "out": [list(images.tile_counts(*case)) for case in cases]}}


def crops(fixture: HelpersFixture) -> tuple[Records, Arrays]:
    """Overlapping crops with the engine's resampling and with Pillow's."""
    records, arrays = {}, {}
    for name in sorted(name for name in fixture.recorded if name.startswith("crops")):
        sizes = fixture.recorded[name]
        vision = tiling_sizes(
            crop=sizes["crop_size"], patch=sizes["enc_patch_size"],
            margin=sizes["overlap_margin"], max_tiles=sizes["max_crops"],
        )  # fmt: skip
        image = fixture.inputs[f"{name}/image"]
        arrays[f"{name}/kestrel_native"], tiling = images.overlapping_crops(image, vision, "engine")
        arrays[f"{name}/pil"], _ = images.overlapping_crops(image, vision, "pillow")
        records[name] = {**sizes, "tiling": list(tiling)}
    return records, arrays


def stitching(fixture: HelpersFixture) -> tuple[Records, Arrays]:
    """Tile features stitched, and pooled back to the grid of one crop."""
    records, arrays = {}, {}
    for name in sorted(name for name in fixture.recorded if name.startswith("recon")):
        rows, cols = tiling = fixture.recorded[name]["tiling"]
        margin = fixture.recorded[name]["margin"]
        tiles = fixture.inputs[f"{name}/crops"]
        vision = tiling_sizes(crop=tiles.shape[1], patch=1, margin=margin, max_tiles=len(tiles))
        along = tiles.reshape(rows, cols, *tiles.shape[1:])
        by_row, by_col = images.axis_stitching(rows, vision), images.axis_stitching(cols, vision)
        arrays[f"{name}/full"] = np.einsum("iya,jxb,ijabd->yxd", by_row, by_col, along)
        pool_rows, pool_cols = images.stitching_weights((rows, cols), vision, len(tiles) + 1)
        arrays[f"{name}/pooled"] = np.einsum("cka,clb,cabd->kld", pool_rows[1:], pool_cols[1:], tiles)
        records[name] = {"tiling": list(tiling), "margin": margin}
    return records, arrays


def resizing(fixture: HelpersFixture) -> Arrays:
    """The refiner's resizing: images and probabilities bilinear, masks to the nearest."""
    rgb, mask = fixture.inputs["cv2/rgb"], fixture.inputs["cv2/mask"]
    return {
        "cv2/rgb_linear_up_90x77": cv2.resize(rgb, (90, 77), interpolation=cv2.INTER_LINEAR),
        "cv2/rgb_linear_down_21x19": cv2.resize(rgb, (21, 19), interpolation=cv2.INTER_LINEAR),
        "cv2/mask_nearest_90x77": cv2.resize(mask, (90, 77), interpolation=cv2.INTER_NEAREST),
        "cv2/mask_nearest_21x19": cv2.resize(mask, (21, 19), interpolation=cv2.INTER_NEAREST),
        "cv2/float_linear_31x77": to_rectangle(fixture.inputs["cv2/float"], (0, 0, 31, 77)),
    }


def activations(fixture: HelpersFixture) -> Arrays:
    """Both forms of GELU."""
    x = fixture.inputs["act/x"]
    return {
        "act/gelu_tanh": np.asarray(jax.nn.gelu(x, approximate=True)),
        "act/gelu_erf": np.asarray(jax.nn.gelu(x, approximate=False)),
    }
