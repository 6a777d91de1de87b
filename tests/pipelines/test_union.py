"""The union of training sets holds no photo that is judged anywhere."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.build import build_shapes
from data_pipelines.coco.build import build_coco
from data_pipelines.source import open_split
from data_pipelines.union import build as union_build
from data_pipelines.union.build import build_union
from moonseg_jax.errors import UserError

HEIGHT, WIDTH = 24, 32
SQUARE, OTHER = [[4, 4, 14, 4, 14, 14, 4, 14]], [[1, 1, 6, 1, 6, 6, 1, 6]]


def build(folder, name, photos, *, val=0, category="cat", segmentation=SQUARE, size=(HEIGHT, WIDTH)):
    """A data set of photos with these COCO ids, the last `val` of them held out."""
    images = folder / f"images-{name}"
    images.mkdir()
    for number in photos:
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    listed = [{"id": n, "file_name": f"{n}.png", "height": size[0], "width": size[1]} for n in photos]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "segmentation": segmentation} for n in photos
    ]
    content = {"images": listed, "categories": [{"id": 1, "name": category}], "annotations": annotations}
    (folder / f"{name}.json").write_text(json.dumps(content))
    build_coco(folder / name, images=images, annotations=folder / f"{name}.json", val=val, progress=False)
    return folder / name


def phrases(folder, split="train"):
    source = open_split(folder, split)
    return {
        source[i].examples[0].image_id: [example.phrase for example in source[i].examples] for i in range(len(source))
    }


def test_a_planted_leak_vanishes_and_photos_carry_the_phrases_of_all_sets(tmp_path):
    first = build(tmp_path, "first", [1, 2, 3, 4], val=1)
    second = build(tmp_path, "second", [2, 5, 3], val=1, category="dog")
    third = build(tmp_path, "third", [4, 6, 2], category="cat")
    manifest = build_union(tmp_path / "out", sources=[first, second, third], val_from=first, progress=False)
    # 4 is judged in first and learned from in third; 3 is judged in second and learned from in first.
    assert phrases(tmp_path / "out") == {1: ["cat"], 2: ["cat", "dog"], 5: ["dog"], 6: ["cat"]}
    assert phrases(tmp_path / "out", "val") == {4: ["cat"]}
    assert manifest.settings["removed"] == 2 and manifest.settings["held_out_photos"] == 2
    every = [e for split in ("train", "val") for s in _scenes(tmp_path / "out", split) for e in s.examples]
    assert sorted(example.example_id for example in every) == list(range(6))
    for scene in _scenes(tmp_path / "out", "train"):
        number = scene.examples[0].image_id
        expected = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        np.testing.assert_array_equal(scene.examples[0].image, expected)


def _scenes(folder, split):
    source = open_split(folder, split)
    return [source[i] for i in range(len(source))]


def test_a_leak_in_what_was_written_is_found(tmp_path, monkeypatch):
    first, second = build(tmp_path, "first", [1, 2], val=1), build(tmp_path, "second", [2, 3])
    leaking = union_build.plan_union

    def forgetful(folders, *, progress):
        plan = leaking(folders, progress=progress)
        return union_build.UnionPlan(
            sources=plan.sources, records=(*plan.records, ((1, 0),)), held_out=plan.held_out, removed={}, apart=0
        )

    monkeypatch.setattr(union_build, "plan_union", forgetful)
    with pytest.raises(UserError, match=r"1 photos of the training split are judged elsewhere, the first is 2 of"):
        build_union(tmp_path / "out", sources=[first, second], progress=False)


def test_a_photo_in_two_sizes_keeps_its_masks_with_its_files(tmp_path):
    first = build(tmp_path, "first", [1, 2])
    second = build(tmp_path, "second", [2, 3], size=(HEIGHT + 4, WIDTH), category="dog", segmentation=OTHER)
    manifest = build_union(tmp_path / "out", sources=[first, second], progress=False)
    assert manifest.splits == {"train": 4} and manifest.settings["photos_of_several_sizes"] == 1
    found = [(s.examples[0].image_id, s.examples[0].image.shape[0], s.examples[0].phrase)
             for s in _scenes(tmp_path / "out", "train")]  # fmt: skip
    assert found == [(1, HEIGHT, "cat"), (2, HEIGHT, "cat"), (2, HEIGHT + 4, "dog"), (3, HEIGHT + 4, "dog")]


def test_the_same_union_is_there_already_and_another_is_refused(tmp_path):
    first, second = build(tmp_path, "first", [1, 2]), build(tmp_path, "second", [2, 3])
    written = build_union(tmp_path / "out", sources=[first, second], progress=False)
    assert build_union(tmp_path / "out", sources=[first, second], progress=False) == written
    with pytest.raises(UserError, match="already holds another data set"):
        build_union(tmp_path / "out", sources=[first], progress=False)


def test_what_cannot_be_united_is_one_clear_error(tmp_path):
    photos, judged = build(tmp_path, "photos", [1, 2], val=1), build(tmp_path, "judged", [7, 1], val=1)
    build_shapes(tmp_path / "shapes", train=1, val=1, seed=0, level=1, progress=False)
    cases = [
        ([photos, tmp_path / "shapes"], {}, "shapes has scenes of its own"),
        ([photos, photos], {}, "named twice"),
        ([tmp_path / "nowhere"], {}, "holds no data set"),
        ([photos], {"val_from": judged}, "must be one of the data sets of the union"),
        ([photos, build(tmp_path, "other", [5, 7], val=1), judged, build(tmp_path, "last", [2, 5], val=1)], {},
         "no photo is left to learn from"),
    ]  # fmt: skip
    for sources, options, message in cases:
        with pytest.raises(UserError, match=message):
            build_union(tmp_path / "out", sources=sources, progress=False, **options)
