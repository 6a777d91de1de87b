"""Phrases of place say which instance is meant, or nothing."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from data_pipelines.coco.annotations import PhotoEntry
from data_pipelines.coco.build import build_coco
from data_pipelines.coco.positional import positional_phrases
from data_pipelines.source import open_split

PHOTO = PhotoEntry(id=1, file_name="1.png", height=100, width=200)


def square(x, y, side=10):
    """The mask of a square around a centre."""
    corners = [x - side / 2, y - side / 2, x + side / 2, y + side / 2]
    return [corners[0], corners[1], corners[2], corners[1], corners[2], corners[3], corners[0], corners[3]]


def said(*centres):
    masks = [coco_mask.merge(coco_mask.frPyObjects([square(*centre)], PHOTO.height, PHOTO.width)) for centre in centres]
    return positional_phrases("cat", masks, PHOTO)


def test_two_and_three_are_named_from_left_to_right_in_the_order_of_the_masks():
    assert said((150, 50), (40, 50)) == ["right cat", "left cat"]
    assert said((150, 20), (40, 50), (90, 80)) == ["right cat", "left cat", "middle cat"]


def test_more_are_counted_from_the_left():
    assert said((20, 50), (180, 50), (100, 50), (60, 50), (140, 50)) == [
        "leftmost cat", "rightmost cat", "third cat from the left", "second cat from the left",
        "fourth cat from the left",
    ]  # fmt: skip


def test_what_stands_above_each_other_is_named_from_the_top():
    assert said((100, 80), (104, 20)) == ["bottom cat", "top cat"]


@pytest.mark.parametrize(
    "centres",
    [[(100, 50)], [(100, 50), (110, 54)], [(20 + 30 * k, 50) for k in range(6)], [(20, 20), (30, 80), (180, 76)]],
    ids=["one", "close", "six", "neither order is clear"],
)
def test_no_phrase_where_the_order_is_not_clear(centres):
    assert said(*centres) is None


def test_built_photos_get_phrases_of_place_but_not_of_categories_with_a_crowd(tmp_path):
    Image.fromarray(np.zeros((PHOTO.height, PHOTO.width, 3), np.uint8)).save(tmp_path / "1.png")
    placed = [(1, 1, 40, 50, 0), (2, 1, 150, 50, 0), (3, 2, 90, 80, 0), (4, 3, 20, 20, 0), (5, 3, 180, 20, 1)]
    annotations = [
        {"id": n, "image_id": 1, "category_id": c, "iscrowd": crowd, "segmentation": [square(x, y)]}
        for n, c, x, y, crowd in placed
    ]
    names = ("cat", "dog", "cow")
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": PHOTO.height, "width": PHOTO.width}],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)], "annotations": annotations,
    }  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(content))
    for positional, expected in ((True, ["left cat", "right cat", "dog"]), (False, ["dog"])):
        out = tmp_path / str(positional)
        build_coco(
            out, images=tmp_path, annotations=tmp_path / "instances.json", positional=positional, progress=False
        )  # fmt: skip
        assert [example.phrase for example in open_split(out, "train")[0].examples] == expected
