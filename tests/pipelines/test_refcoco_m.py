"""Building RefCOCO-M from parquet files."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data_pipelines.refcoco_m.build import build_refcoco_m
from data_pipelines.source import open_split
from moonseg_jax.errors import UserError

pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

HEIGHT, WIDTH = 24, 32
RING = np.zeros((HEIGHT, WIDTH), np.uint8)
RING[4:16, 6:20] = 1
RING[8:12, 10:14] = 0
BAR = np.zeros((HEIGHT, WIDTH), np.uint8)
BAR[2:5, 1:30] = 1


def row(number, *samples):
    image = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return {
        "image": {"bytes": cv2.imencode(".png", image)[1].tobytes(), "path": None},
        "image_id": number, "file_name": f"COCO_train2014_{number:012d}.jpg",
        "samples": [
            {
                "id": number * 10 + k, "image_id": number, "category": "cat", "supercategory": "animal", "label": "cat",
                "sentences": list(sentences), "bbox": [1.0, 2.0, 3.0, 4.0],
                "mask": {
                    "counts": coco_mask.encode(np.asfortranarray(mask))["counts"].decode(), "size": [HEIGHT, WIDTH],
                },
            }
            for k, (mask, sentences) in enumerate(samples)
        ],
    }  # fmt: skip


def rows():
    return [row(9, (RING, ["a ring", "the ring"]), (BAR, ["the bar"])), row(4, (BAR, ["bar"]))]


def build(folder, found, **options):
    parquet.write_table(pyarrow.Table.from_pylist(found), folder / "validation-00000-of-00001.parquet")
    return build_refcoco_m(folder / "out", source=folder, progress=False, **{"partial": True, **options})


def test_every_sentence_of_every_sample_is_an_example_with_its_mask(tmp_path):
    assert build(tmp_path, rows()).splits == {"validation": 2}
    source = open_split(tmp_path / "out", "validation")
    examples = [example for k in range(2) for example in source[k].examples]
    assert [(e.image_id, e.phrase, e.example_id) for e in examples] == [
        (9, "a ring", 0), (9, "the ring", 1), (9, "the bar", 2), (4, "bar", 3),
    ]  # fmt: skip
    for example, mask in zip(examples, (RING, RING, BAR, BAR), strict=True):
        np.testing.assert_array_equal(coco_mask.decode(example.target), mask)
    pixels = cv2.imdecode(np.frombuffer(rows()[0]["image"]["bytes"], np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(examples[0].image, pixels)


def test_counts_of_a_whole_set_are_compared(tmp_path):
    with pytest.raises(UserError, match=r"found \{'sentences': 4, 'masks': 3, 'images': 2\}, known are .*5598"):
        build(tmp_path, rows(), partial=False)


def test_limit_takes_the_first_photos(tmp_path):
    assert build(tmp_path, rows(), limit=1, partial=False).splits == {"validation": 1}


def test_another_schema_is_refused_by_name(tmp_path):
    found = [{key: value for key, value in one.items() if key != "samples"} | {"refs": 1} for one in rows()]
    with pytest.raises(UserError, match=r"not the schema of RefCOCO-M \(samples\); the file has image: struct.*refs"):
        build(tmp_path, found)


@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing else"])
def test_files_that_are_no_parquet_are_refused(tmp_path, content):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UserError, match="not a parquet file"):
        build_refcoco_m(tmp_path / "out", source=tmp_path, progress=False)


def test_masks_of_another_size_and_broken_photos_are_refused(tmp_path):
    found = rows()
    found[0]["samples"][1]["mask"]["size"] = [HEIGHT, WIDTH + 1]
    with pytest.raises(UserError, match=r"row 0: the segmentation of annotation 1 is neither"):
        build(tmp_path, found)
    found = rows()
    found[1]["image"]["bytes"] = found[1]["image"]["bytes"][:100]
    with pytest.raises(UserError, match=r"row 1: .*not a readable image"):
        build(tmp_path, found)
