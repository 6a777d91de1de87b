"""Small files in the layout of the REFER API."""

import json
import pickle

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
SQUARE = [[4, 4, 14, 4, 14, 14, 4, 14]]
TWO_PARTS = [[1, 1, 6, 1, 6, 6, 1, 6], [20, 10, 30, 10, 30, 20, 20, 20]]
OUTSIDE = [[40, 30, 50, 30, 50, 40]]


def ref(number, image, annotation, split, *sentences):
    first = number * 10
    return {
        "ref_id": number, "ann_id": annotation, "image_id": image, "category_id": 1, "split": split,
        "file_name": f"COCO_train2014_{image:012d}_{number}.jpg",
        "sent_ids": [first + k for k in range(len(sentences))],
        "sentences": [
            {"tokens": text.split(), "raw": text, "sent": text, "sent_id": first + k}
            for k, text in enumerate(sentences)
        ],
    }  # fmt: skip


def refs():
    return [
        ref(3, 7, 100, "train", "left cat", "the cat"),
        ref(5, 9, 102, "val", "dog"),
        ref(4, 7, 101, "train", "the cat"),
        ref(6, 8, 103, "testA", "bird"),
    ]


def instance(number, image, segmentation=SQUARE):
    return {
        "id": number, "image_id": image, "category_id": 1, "segmentation": segmentation, "iscrowd": 0,
    }  # fmt: skip


def instances():
    return {
        "images": [
            {"id": k, "file_name": f"COCO_train2014_{k:012d}.jpg", "height": HEIGHT, "width": WIDTH} for k in (7, 8, 9)
        ],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            instance(100, 7), instance(101, 7, TWO_PARTS), instance(102, 9), instance(103, 8, TWO_PARTS),
        ],
    }  # fmt: skip


def write_photos(folder):
    """Photo 7 by its 2017 name, 8 by that of 2014, 9 in a folder of its own."""
    rng = np.random.default_rng(0)
    for name in ("000000000007.jpg", "COCO_train2014_000000000008.jpg", "val2017/000000000009.jpg"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(file, quality=95)


def write_files(folder, expressions=None, annotations=None, name="refs(unc).p"):
    """The two files of a data set."""
    folder.mkdir(parents=True, exist_ok=True)
    found = refs() if expressions is None else expressions
    if name.endswith(".json"):
        (folder / name).write_text(json.dumps(found))
    else:
        (folder / name).write_bytes(pickle.dumps(found, protocol=2))
    (folder / "instances.json").write_text(json.dumps(instances() if annotations is None else annotations))
