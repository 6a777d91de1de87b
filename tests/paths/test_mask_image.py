"""Image files as masks: which pixels are foreground, and what is refused."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.paths.mask_image import photo_uri, read_mask

MASK = np.arange(35).reshape(5, 7) % 3 == 0


def saved(tmp_path, image: Image.Image):
    image.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        grey(MASK * 255),
        grey(MASK * 1),
        Image.fromarray(MASK),
        grey(MASK * 255).convert("RGB"),
        grey(MASK * 255).convert("RGBA"),
        Image.fromarray((MASK * 1).astype(np.uint16)),
        Image.fromarray((MASK * 65535).astype(np.uint16)),
    ],
    ids=["0 and 255", "0 and 1", "1 bit", "rgb", "opaque", "16 bits, 0 and 1", "16 bits"],
)
def test_black_and_one_other_level_is_a_mask(tmp_path, image):
    mask, levels = read_mask(saved(tmp_path, image))
    np.testing.assert_array_equal(mask, MASK)
    assert levels == 2


def test_palettes_are_read_by_their_colours(tmp_path):
    image = Image.fromarray(MASK.astype(np.uint8), mode="P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(saved(tmp_path, image))[0], ~MASK)


def test_soft_edges_are_cut_at_half(tmp_path):
    mask, levels = read_mask(saved(tmp_path, grey(np.array([[0, 127, 128, 255]]))))
    assert mask.tolist() == [[False, False, True, True]] and levels == 4


@pytest.mark.parametrize(("value", "expected"), [(0, False), (1, True), (255, True)])
def test_one_level_is_all_or_nothing(tmp_path, value, expected):
    mask, levels = read_mask(saved(tmp_path, grey(np.full((3, 4), value))))
    assert mask.shape == (3, 4) and mask.all() == mask.any() == expected and levels == 1


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.new("RGB", (3, 3), "red"), "has colours"),
        (Image.new("RGBA", (3, 3), (255, 255, 255, 9)), "has transparent pixels"),
        (grey(np.array([[0, 1, 2, 5]])), "4 levels up to 5, like a label map"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, image, said):
    with pytest.raises(UserError, match=said):
        read_mask(saved(tmp_path, image))


def test_files_that_are_no_image_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_mask(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(UserError, match="not a readable image"):
        read_mask(tmp_path / "text.png")


def test_a_photo_becomes_a_data_uri_if_it_fits(tmp_path):
    file = tmp_path / "photo.jpg"
    photo = Image.new("RGB", (7, 5), "red")
    photo.save(file)
    uri = photo_uri(file, height=5, width=7)
    kind, content = uri.split(",")
    assert kind == "data:image/jpeg;base64" and base64.b64decode(content) == file.read_bytes()
    with pytest.raises(UserError, match=r"has 5x7 pixels \(HxW\), the mask 7x5"):
        photo_uri(file, height=7, width=5)
    turned = photo.getexif()
    turned[0x0112] = 6
    photo.save(file, exif=turned)
    assert photo_uri(file, height=7, width=5).startswith("data:image/jpeg")
    photo.save(tmp_path / "photo.tiff")
    with pytest.raises(UserError, match="image/tiff; browsers show"):
        photo_uri(tmp_path / "photo.tiff", height=5, width=7)
