"""Photos and annotations as they come from the wild: read as any viewer shows them, or named in one line."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from test_coco import HEIGHT, SQUARE, WIDTH

from data_pipelines.coco.build import build_coco
from data_pipelines.lvis.build import build_lvis
from data_pipelines.source import open_split
from moonseg_jax.errors import UserError

PIXELS = np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def huge_png(side=30_000):
    """A valid PNG of one grey level whose header says 30,000 x 30,000; a few kilobytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer, rows = zlib.compressobj(9), b"\0" * (side // 8 + 1)
    data = b"".join(packer.compress(rows) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(image, kind, **options):
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def turned_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(PIXELS), "JPEG", quality=100, subsampling=0, exif=exif)


READABLE = {
    "cmyk": (encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG", quality=100), 12),
    "grey-16-bit": (encoded(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG"), None),
    "palette": (encoded(Image.fromarray(PIXELS).quantize(64), "PNG", transparency=3), 40),
    "turned": (turned_jpeg(), 12),
}  # fmt: skip
"""Bytes of a file, and how far its pixels may be from `PIXELS` on average; None for the grey of the red channel."""

BROKEN = {
    "truncated": (encoded(Image.fromarray(PIXELS), "JPEG", quality=95)[:-200], "not a readable image|truncated|broken"),
    "empty": (b"", "not a readable image|is empty"),
    "text": (b"<html>not found</html>", "not a readable image"),
    "huge": (huge_png(), r"30000 ?x ?30000.*at most|900000000|too large|pixels"),
}  # fmt: skip


def build(folder, content, **options):
    (folder / "images").mkdir()
    (folder / "images" / "1.jpg").write_bytes(content)
    (folder / "images" / "2.png").write_bytes(encoded(Image.fromarray(PIXELS), "PNG"))
    photos = [
        {"id": n, "file_name": name, "height": HEIGHT, "width": WIDTH} for n, name in ((1, "1.jpg"), (2, "2.png"))
    ]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "segmentation": SQUARE} for n in (1, 2)
    ]  # fmt: skip
    tables = {"images": photos, "categories": [{"id": 1, "name": "cat"}], "annotations": annotations}
    (folder / "instances.json").write_text(json.dumps(tables))
    build_coco(
        folder / "out", images=folder / "images", annotations=folder / "instances.json", progress=False, **options
    )  # fmt: skip
    return open_split(folder / "out", "train")


@pytest.mark.parametrize("kind", READABLE)
def test_unusual_photos_are_read_in_the_frame_of_their_masks(tmp_path, kind):
    content, distance = READABLE[kind]
    image = build(tmp_path, content)[0].examples[0].image
    assert image.shape == (HEIGHT, WIDTH, 3)
    expected = PIXELS if distance else np.repeat(PIXELS[..., :1], 3, axis=2)
    assert np.abs(image.astype(int) - expected).mean() <= (distance or 1)


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_photos_are_named_counted_and_left_out_only_on_request(tmp_path, kind):
    content, message = BROKEN[kind]
    with pytest.raises(UserError, match=r"1 of 2 photos are missing or broken, 0 may be") as told:
        build(tmp_path, content)
    assert "\n" not in str(told.value)
    (line,) = (tmp_path / "out" / "missing_images.txt").read_text().splitlines()
    assert "1.jpg" in line
    import re

    assert re.search(message, line), line
    build_coco(
        tmp_path / "out", images=tmp_path / "images", annotations=tmp_path / "instances.json", allow_missing=1,
        progress=False,
    )  # fmt: skip
    source = open_split(tmp_path / "out", "train")
    assert len(source) == 1 and source.manifest.settings["missing_images"] == 1


def lvis_tables():
    photos = [
        {"id": 1, "file_name": "2.png", "height": HEIGHT, "width": WIDTH, "not_exhaustive_category_ids": [],
         "neg_category_ids": []}
    ]  # fmt: skip
    annotations = [{"id": 5, "image_id": 1, "category_id": 1, "segmentation": SQUARE}]
    return {"images": photos, "categories": [{"id": 1, "synonyms": ["cat"]}], "annotations": annotations}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["annotations"][0].update(segmentation=[[1, 1, 5, 5]]), "annotation 5 .* at least 3 vertices"),
        (lambda t: t["annotations"][0].update(segmentation=[[1, 1, 5, 5, 9]]), "annotation 5"),
        (lambda t: t["annotations"].append(t["annotations"][0]), r"annotations\[1\]\.id: 5 occurs twice"),
        (lambda t: t["images"].append(t["images"][0]), r"images\[1\]\.id: 1 occurs twice"),
        (
            lambda t: t["annotations"][0].update(segmentation=[[90, 90, 95, 90, 95, 95]]),
            "annotation 5 has no pixel|no photo",
        ),
    ],
    ids=["two-vertices", "odd", "duplicate-annotation", "duplicate-image", "outside"],
)
def test_broken_lvis_annotations_are_one_clear_error_or_listed(tmp_path, change, message):
    (tmp_path / "2.png").write_bytes(encoded(Image.fromarray(PIXELS), "PNG"))
    tables = lvis_tables()
    change(tables)
    (tmp_path / "lvis.json").write_text(json.dumps(tables))
    with pytest.raises(UserError, match=message):
        build_lvis(tmp_path / "out", source=tmp_path / "lvis.json", images=tmp_path, progress=False)
