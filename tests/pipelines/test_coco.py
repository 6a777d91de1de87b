"""Building a data set from photos with COCO annotations."""

import io
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from data_pipelines.coco import photos
from data_pipelines.coco.build import build_coco
from data_pipelines.source import open_split
from moonseg_jax.errors import UserError

HEIGHT, WIDTH = 24, 32
SQUARE = [[4, 4, 14, 4, 14, 14, 4, 14]]
TWO_PARTS = [[1, 1, 6, 1, 6, 6, 1, 6], [20, 10, 30, 10, 30, 20, 20, 20]]
UNCOMPRESSED = {"size": [HEIGHT, WIDTH], "counts": [24 * 5, 24 * 3, 24 * 24]}
COMPRESSED_MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
COMPRESSED_MASK[2:9, 3:17] = 1
COMPRESSED = {
    "size": [HEIGHT, WIDTH],
    "counts": coco_mask.encode(np.asfortranarray(COMPRESSED_MASK))["counts"].decode(),
}


def instance(number, image, category, segmentation=SQUARE, crowd=0):
    return {
        "id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd,
    }  # fmt: skip


def tables():
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 9, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH},
            {"id": 3, "file_name": "c.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 5, "name": "hot dog"}],
        "annotations": [
            instance(100, 7, 1),
            instance(101, 7, 2, TWO_PARTS),
            instance(102, 7, 5, UNCOMPRESSED),
            instance(103, 9, 1, COMPRESSED),
            instance(104, 9, 2),
            instance(105, 9, 2, TWO_PARTS),
            instance(106, 9, 5, UNCOMPRESSED, crowd=1),
            instance(107, 3, 2),
            instance(108, 3, 2, UNCOMPRESSED, crowd=1),
        ],
    }


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(images / name)
    return tmp_path


def build(folder, content=None, **options):
    file = folder / "instances.json"
    file.write_text(json.dumps(tables() if content is None else content))
    build_coco(folder / "out", images=folder / "images", annotations=file, progress=False, **options)
    return open_split(folder / "out", "train")


def mask_of(example):
    return coco_mask.decode(example.target).astype(bool)


def test_categories_that_occur_once_become_phrases(folder):
    source = build(folder)
    phrases = [[example.phrase for example in source[i].examples] for i in range(len(source))]
    assert phrases == [["cat", "dog", "hot dog"], ["cat"]]
    examples = [example for i in range(2) for example in source[i].examples]
    assert [example.example_id for example in examples] == [0, 1, 2, 3]
    assert [example.image_id for example in examples] == [7, 7, 7, 9]


def test_masks_are_those_of_ann_to_rle(folder):
    source = build(folder)
    file = folder / "instances.json"
    official = COCO(str(file))
    for i, numbers in enumerate(((100, 101, 102), (103,))):
        for example, number in zip(source[i].examples, numbers, strict=True):
            np.testing.assert_array_equal(mask_of(example), official.annToMask(official.anns[number]))
    np.testing.assert_array_equal(mask_of(source[1].examples[0]), COMPRESSED_MASK)


def test_runs_of_compressed_encodings_are_read_as_pycocotools_does():
    rng = np.random.default_rng(5)
    for share in (0.02, 0.5, 0.98):
        mask = np.asfortranarray(rng.random((60, 70)) < share).astype(np.uint8)
        mask[:, 30:50] = 1
        encoded = coco_mask.encode(mask)["counts"].decode()
        flat = mask.reshape(-1, order="F").astype(int)
        changes = np.flatnonzero(np.diff(flat, prepend=0))
        expected = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
        assert photos._runs(encoded) == expected


def test_pixels_are_kept(folder):
    source = build(folder)
    np.testing.assert_array_equal(source[0].examples[0].image, np.asarray(Image.open(folder / "images/a.png")))
    seen = source[1].examples[0].image.astype(int)
    assert np.abs(seen - np.asarray(Image.open(folder / "images/b.jpg"))).mean() < 2


def test_photos_with_an_orientation_tag_keep_the_frame_of_their_masks(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.open(io.BytesIO((folder / "images/b.jpg").read_bytes()))
    pixels = np.asarray(stored)
    stored.save(folder / "images/b.jpg", exif=exif, quality=95)
    image = build(folder)[1].examples[0].image
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(image.astype(int) - pixels).mean() < 12


def test_small_targets_are_left_out(folder):
    # Areas: square 100, two parts 125, runs 72, compressed 98 of 768 pixels.
    source = build(folder, min_area=0.129)
    assert [[example.phrase for example in source[i].examples] for i in range(len(source))] == [["cat", "dog"]]


def test_last_photos_are_held_out_and_limit_counts_photos_with_phrases(folder):
    build(folder, val=1)
    assert [example.phrase for example in open_split(folder / "out", "val")[0].examples] == ["cat"]
    assert len(open_split(folder / "out", "train")) == 1
    limited = folder / "limited"
    build_coco(limited, images=folder / "images", annotations=folder / "instances.json", limit=1, progress=False)
    assert len(open_split(limited, "train")) == 1


BROKEN = [
    (lambda t: t.pop("images"), "the list 'images' is missing"),
    (lambda t: t["annotations"][2].pop("category_id"), r"annotations\[2\]\.category_id: missing"),
    (lambda t: t["annotations"][0].update(image_id=8), r"annotations\[0\]\.image_id: there is no image 8"),
    (lambda t: t["annotations"][0].update(category_id=4), r"annotations\[0\]\.category_id: there is no category 4"),
    (lambda t: t["images"][1].update(width="wide"), r"images\[1\]\.width: expected int, found 'wide'"),
    (lambda t: t["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "segmentation of annotation 100"),
    (lambda t: t["annotations"][0].update(segmentation={"size": [3, 3], "counts": [9]}), "annotation 100"),
    (lambda t: t["annotations"][2]["segmentation"].update(counts=[5]), "segmentation of annotation 102"),
    (lambda t: t["annotations"][3]["segmentation"].update(counts="zz"), "segmentation of annotation 103"),
    (lambda t: t["annotations"].clear(), "no photo holds a category exactly once"),
    (lambda t: t["images"][0].update(file_name="x.png"), r"1 of 2 photos are missing or broken.*looked for x\.png"),
    (lambda t: t["images"][0].update(width=WIDTH - 1), "annotation 102"),
]  # fmt: skip


@pytest.mark.parametrize("change, message", BROKEN)
def test_broken_annotations_are_one_clear_error(folder, change, message):
    content = json.loads(json.dumps(tables()))
    change(content)
    with pytest.raises(UserError, match=message):
        build(folder, content)


def test_broken_files_are_one_clear_error(folder):
    cases = [
        (dict(images=folder / "nowhere"), "no such folder"),
        (dict(annotations=folder / "nowhere.json"), "cannot be read"),
        (dict(annotations=folder / "images/a.png"), "not a JSON file"),
        (dict(val=2), "only 2 photos"),
        (dict(limit=0), "at least one photo"),
        (dict(min_area=1.0), "from 0 to below 1"),
    ]
    (folder / "instances.json").write_text(json.dumps(tables()))
    defaults = dict(images=folder / "images", annotations=folder / "instances.json", progress=False)
    for options, message in cases:
        with pytest.raises(UserError, match=message):
            build_coco(folder / "out", **{**defaults, **options})


def test_a_photo_of_another_size_is_refused(folder):
    Image.fromarray(np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8)).save(folder / "images/a.png")
    with pytest.raises(UserError, match="33x24 pixels, its annotations say 32x24"):
        build(folder)


def test_a_file_that_is_no_image_is_refused(folder):
    (folder / "images/a.png").write_text("no image")
    with pytest.raises(UserError, match=r"a\.png.*not a readable image"):
        build(folder)


def test_real_photos(tmp_path):
    if "MOONSEG_REAL_DATA" not in os.environ:
        pytest.skip("MOONSEG_REAL_DATA does not name a folder with real photos")
    coco = pathlib.Path(os.environ["MOONSEG_REAL_DATA"]) / "coco"
    build_coco(
        tmp_path / "out", images=coco / "images", annotations=coco / "instances.json", progress=False
    )  # fmt: skip
    source = open_split(tmp_path / "out", "train")
    official = json.loads((coco / "instances.json").read_text())
    once = 0
    for photo in official["images"]:
        seen = [a["category_id"] for a in official["annotations"] if a["image_id"] == photo["id"]]
        crowds = [a["category_id"] for a in official["annotations"] if a["image_id"] == photo["id"] and a["iscrowd"]]
        once += sum(seen.count(category) == 1 and category not in crowds for category in set(seen))
    assert sum(len(source[i].examples) for i in range(len(source))) == once
    assert len(source) == 61
