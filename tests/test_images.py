"""Decoding, tiling, crops and stitching weights."""

import io
import json
import math
import os
import pathlib

import numpy as np
import pytest
from decompression_bomb import BOMB
from PIL import Image

from moonseg_jax import config, images
from moonseg_jax.errors import UserError

FIXTURE_SIZES = dict(
    width=64, layers=3, heads=4, mlp_width=96, projection_width=128, early_layer=1,
)  # fmt: skip


@pytest.fixture
def fixtures() -> pathlib.Path:
    if "MOONSEG_FIXTURES" not in os.environ:
        pytest.skip("MOONSEG_FIXTURES does not name the folder of official outputs")
    return pathlib.Path(os.environ["MOONSEG_FIXTURES"])


def vision_of(crop: int, patch: int, margin: int, max_tiles: int) -> config.VisionConfig:
    return config.VisionConfig(crop=crop, patch=patch, overlap_margin=margin, max_tiles=max_tiles, **FIXTURE_SIZES)


SMALL_CROPS = vision_of(96, 8, 2, 4)


def pool_with_weights(features: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    return np.einsum("cka,clb,cabd->kld", rows, cols, features)


def test_full_size_tiling_of_common_photos():
    vision = config.moondream3().vision
    # 480x640: 368x528 less margins need 2x2 tiles, stretched to floor(sqrt(12 * 528 / 368)) = 4 columns.
    # 1080x1920: 968x1808 would need 4x7 = 28 > 12 tiles, so both counts shrink by sqrt(12 / 28).
    expected = {
        (480, 640): (2, 4),
        (1080, 1920): (2, 4),
        (378, 378): (1, 1),
        (100, 4000): (1, 1),
        (1, 1): (1, 1),
    }
    assert {size: images.select_tiling(*size, vision) for size in expected} == expected


def test_tiling_equals_official(fixtures):
    recorded = json.loads((fixtures / "moondream3/helpers/helpers.json").read_text())["select_tiling"]
    got = [list(images.tile_counts(*case)) for case in recorded["cases"]]
    assert got == [list(tiling) for tiling in recorded["out"]]


def test_image_of_crop_size_passes_untouched():
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    crops, tiling = images.overlapping_crops(image, SMALL_CROPS)
    assert tiling == (1, 1)
    np.testing.assert_array_equal(crops, np.stack([image, image]))


def test_tiles_overlap_by_twice_the_margin():
    vision = SMALL_CROPS
    image = np.random.default_rng(1).integers(0, 256, (160, 160, 3), np.uint8)
    crops, tiling = images.overlapping_crops(image, vision)
    assert tiling == (2, 2)
    np.testing.assert_array_equal(crops[4], image[64:, 64:])
    np.testing.assert_array_equal(crops[1][:, 64:], crops[2][:, :32])


@pytest.mark.parametrize("case", range(6))
def test_crops_near_the_official_engine(fixtures, case):
    helpers = fixtures / "moondream3/helpers"
    sizes = json.loads((helpers / "helpers.json").read_text())[f"crops{case}"]
    vision = vision_of(sizes["crop_size"], sizes["enc_patch_size"], sizes["overlap_margin"], sizes["max_crops"])
    image = np.load(helpers / "inputs.npz")[f"crops{case}/image"]
    expected = np.load(helpers / "expected.npz")
    for resampling, name, tolerance in (("engine", "kestrel_native", 2), ("pillow", "pil", 0)):
        crops, tiling = images.overlapping_crops(image, vision, resampling)
        assert list(tiling) == sizes["tiling"]
        assert np.abs(crops.astype(int) - expected[f"crops{case}/{name}"]).max() <= tolerance


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_stitching_weights_reproduce_the_official_pooling(fixtures, seed, case):
    folder = fixtures / f"moondream3/A_seed{seed}"
    expected = np.load(folder / "expected.npz")
    tiling = tuple(int(n) for n in np.load(folder / "inputs.npz")[f"vision{case}/tiling"])
    vision = vision_of(42, 14, 1, 12)
    features = expected[f"vision{case}/features"]
    features = features.reshape(len(features), 3, 3, -1)
    rows, cols = images.stitching_weights(tiling, vision, len(features))
    got = pool_with_weights(features, rows, cols).reshape(9, -1)
    np.testing.assert_allclose(got, expected[f"vision{case}/pooled"], atol=1e-5)


@pytest.mark.parametrize("case", range(3))
def test_stitching_weights_at_other_margins(fixtures, case):
    helpers = fixtures / "moondream3/helpers"
    recorded = json.loads((helpers / "helpers.json").read_text())[f"recon{case}"]
    tiles = np.load(helpers / "inputs.npz")[f"recon{case}/crops"]
    grid = tiles.shape[1]
    vision = vision_of(grid, 1, recorded["margin"], 12)
    features = np.concatenate([np.full_like(tiles[:1], np.nan), tiles])[1:]
    rows, cols = images.stitching_weights(tuple(recorded["tiling"]), vision, len(tiles) + 1)
    got = pool_with_weights(features, rows[1:], cols[1:])
    np.testing.assert_allclose(got, np.load(helpers / "expected.npz")[f"recon{case}/pooled"], atol=1e-5)
    assert not rows[0].any()


def test_weights_of_every_pooled_cell_sum_to_one():
    vision = config.moondream3().vision
    rows, cols = images.stitching_weights((3, 4), vision, 13)
    total = np.einsum("cka,clb->kl", rows, cols)
    np.testing.assert_allclose(total, np.ones((27, 27)), rtol=1e-5)


def test_single_crop_serves_as_overview_and_tile():
    vision = SMALL_CROPS
    image = np.random.default_rng(2).integers(0, 256, (96, 96, 3), np.uint8)
    crops, rows, cols = images.pack_crops(image, vision, 1)
    both, rows_2, cols_2 = images.pack_crops(image, vision, 3)
    np.testing.assert_array_equal(crops[0], both[1])
    assert not both[2].any()
    np.testing.assert_array_equal(rows[0], rows_2[1])
    np.testing.assert_array_equal(cols[0], cols_2[1])
    np.testing.assert_array_equal(rows[0], np.eye(12))


def test_too_few_crops_is_a_user_error():
    image = np.zeros((160, 160, 3), np.uint8)
    with pytest.raises(UserError, match=r"2x2 needs 5 crops but the batch holds 4"):
        images.pack_crops(image, SMALL_CROPS, 4)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_grey_alpha_palette_and_16_bit_become_rgb():
    grey = np.array([[0, 7], [200, 255]], np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    rgba = np.dstack([rgb, np.zeros((2, 2), np.uint8)])
    deep = Image.fromarray((grey.astype(np.uint16) << 8) | 3)
    sources = [
        grey, rgb, rgba, Image.fromarray(grey), Image.fromarray(rgba),
        encoded(Image.fromarray(grey)), encoded(Image.fromarray(rgba)), encoded(deep),
        encoded(Image.fromarray(rgb).quantize(4)),
    ]  # fmt: skip
    for source in sources:
        np.testing.assert_array_equal(images.decode_image(source), rgb)


def test_orientation_is_applied_only_on_request():
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    assert images.decode_image(buffer.getvalue()).shape == (2, 3, 3)
    turned = images.decode_image(buffer.getvalue(), orient=True)
    np.testing.assert_array_equal(turned[..., 0], [[3, 0], [4, 1], [5, 2]])


def test_no_image_has_more_tiles_than_a_batch_holds():
    sides = [*range(1, 1000, 37), 4000, 20_000]
    for vision in (config.tiny().vision, config.moondream3().vision):
        assert vision.max_tiles == max(
            math.prod(images.select_tiling(height, width, vision)) for height in sides for width in sides
        )
    assert images.select_tiling(100, 900, config.tiny().vision) == (1, 4)
    strip = Image.fromarray(np.zeros((100, 900, 3), np.uint8))
    assert images.pack_crops(np.asarray(strip), config.tiny().vision, 5)[0].shape[0] == 5


def test_broken_input_is_one_clear_error(tmp_path):
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
    text = tmp_path / "notes.txt"
    text.write_text("not an image")
    small = images.ImageLimits(max_pixels=100, max_bytes=200)
    cases = [
        (lambda: images.decode_image(tmp_path / "absent.png"), "no such file"),
        (lambda: images.decode_image(text), "not a readable image"),
        (lambda: images.decode_image(tmp_path), "cannot be read"),
        (lambda: images.decode_image(b""), "not a readable image"),
        (lambda: images.decode_image(whole[: len(whole) // 2]), "not a readable image"),
        (lambda: images.decode_image(whole, small), "larger than the limit of 200 bytes"),
        (lambda: images.decode_image(np.zeros((20, 20, 3), np.uint8), small), "limit is 100 pixels"),
        (lambda: images.decode_image(BOMB), "far more pixels than the limit of 64000000; shrink it first"),
        (lambda: images.decode_image(np.zeros((20, 20, 3), np.float32)), "expected uint8"),
        (lambda: images.decode_image(np.zeros((0, 20, 3), np.uint8)), "nothing in it"),
    ]
    for decode, message in cases:
        with pytest.raises(UserError, match=message):
            decode()
