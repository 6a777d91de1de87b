"""Building data sets from LVIS annotations."""

import collections
import json
import os
import pathlib

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from refer_files import HEIGHT, SQUARE, TWO_PARTS, WIDTH, write_photos

from data_pipelines.lvis.annotations import read_lvis
from data_pipelines.lvis.build import build_lvis
from data_pipelines.lvis.plans import plan_lvis
from data_pipelines.source import open_split
from moonseg_jax import cli
from moonseg_jax.errors import UserError

REAL_DATA = os.environ.get("MOONSEG_REAL_DATA")
CORNER = [[20, 10, 24, 10, 24, 14, 20, 14]]


def tables(version=1):
    names = {7: "train2017/000000000007.jpg", 8: "train2017/000000000008.jpg", 9: "val2017/000000000009.jpg"}
    url = "http://images.cocodataset.org/"
    images = [
        {"id": k, "height": HEIGHT, "width": WIDTH, "not_exhaustive_category_ids": [2] if k == 7 else [],
         "neg_category_ids": [], "coco_url": url + name}
        for k, name in names.items()
    ]  # fmt: skip
    if version == 0:
        for image in images:
            image["file_name"] = f"COCO_train2014_{image['id']:012d}.jpg"
    return {
        "images": images,
        "categories": [
            {"id": 1, "name": "clock", "synonyms": ["alarm_clock", "clock"]},
            {"id": 2, "name": "cat", "synonyms": ["cat"]},
        ],
        "annotations": [
            {"id": 50 + k, "image_id": image, "category_id": category, "segmentation": polygons}
            for k, (image, category, polygons) in enumerate(
                [(7, 1, SQUARE), (7, 2, SQUARE), (7, 1, CORNER), (8, 2, TWO_PARTS), (9, 1, CORNER)]
            )
        ],
    }


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "images")
    return tmp_path


def build(folder, content=None, **options):
    (folder / "lvis.json").write_text(json.dumps(tables() if content is None else content))
    build_lvis(
        folder / "out", source=folder / "lvis.json", images=folder / "images", progress=False, **options
    )  # fmt: skip
    source = open_split(folder / "out", options.get("split", "val"))
    return [example for k in range(len(source)) for example in source[k].examples]


@pytest.mark.parametrize("version", [0, 1])
def test_a_category_is_the_union_of_its_instances_and_skipped_where_not_exhaustive(folder, version):
    examples = build(folder, tables(version))
    assert [(e.image_id, e.phrase, e.example_id) for e in examples] == [
        (7, "alarm clock", 0), (8, "cat", 1), (9, "alarm clock", 2),
    ]  # fmt: skip
    both = np.zeros((HEIGHT, WIDTH), bool)
    both[4:14, 4:14] = both[10:14, 20:24] = True
    np.testing.assert_array_equal(coco_mask.decode(examples[0].target), both)


def test_instances_are_examples_of_their_own(folder):
    examples = build(folder, instances=True, split="train")
    assert [(e.image_id, e.phrase, e.example_id, int(coco_mask.area(e.target))) for e in examples] == [
        (7, "alarm clock", 50, 100), (7, "alarm clock", 52, 16), (8, "cat", 53, 125), (9, "alarm clock", 54, 16),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("images", {"coco_url": None}, r"images\[0\].coco_url: expected str"),
        ("images", {"not_exhaustive_category_ids": [77]}, r"images\[0\].not_exhaustive_category_ids: .* category 77"),
        ("images", {"id": 8}, r"images\[1\].id: 8 occurs twice"),
        ("categories", {"synonyms": []}, r"categories\[0\].synonyms: expected names"),
        ("annotations", {"image_id": 1}, r"annotations\[0\].image_id: there is no image 1"),
        ("annotations", {"category_id": 9}, r"annotations\[0\].category_id: there is no category 9"),
        ("annotations", {"segmentation": [[1, 1, 2, 2]]}, r"annotation 50 is neither a list of polygons"),
    ],
)
def test_entries_that_are_not_what_lvis_says_are_named(folder, table, change, message):
    content = tables()
    content[table][0].update(change)
    with pytest.raises(UserError, match=message):
        build(folder, content)


def test_the_command_builds_and_counts_missing_photos(folder, capsys):
    (folder / "lvis.json").write_text(json.dumps(tables()))
    (folder / "images/val2017/000000000009.jpg").unlink()
    words = ["data", "build", "lvis", "--from", f"{folder}/lvis.json", "--images", f"{folder}/images"]
    assert cli.main([*words, "--out", f"{folder}/out"]) == 2
    assert "1 of 3 photos are missing or broken, 0 may be" in capsys.readouterr().err
    assert cli.main([*words, "--out", f"{folder}/out", "--allow-missing", "1"]) == 0
    assert "val 2 photos" in capsys.readouterr().out


@pytest.mark.skipif(REAL_DATA is None, reason="MOONSEG_REAL_DATA names no folder of real data")
def test_real_lvis_annotations_are_read():
    file = pathlib.Path(REAL_DATA) / "lvis/lvis_val_50.json"
    raw = json.loads(file.read_text())
    skipped = {image["id"]: image["not_exhaustive_category_ids"] for image in raw["images"]}
    kept = [(a["image_id"], a["category_id"]) for a in raw["annotations"]]
    kept = [(image, category) for image, category in kept if category not in skipped[image]]
    for instances, expected in ((True, kept), (False, list(set(kept)))):
        plans, refused = plan_lvis(read_lvis(file), instances=instances, limit=None)
        assert len(expected) == sum(len(plan.phrases) for plan in plans) + len(refused)
        sizes = collections.Counter(image for image, _ in expected)
        assert refused or {plan.photo.id: len(plan.phrases) for plan in plans} == dict(sizes)
