"""Building a data set and reading it back."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest

from data_pipelines.build import build_shapes
from data_pipelines.schema import encode_png, to_record, to_scene
from data_pipelines.shapes.scene import generate_scene
from data_pipelines.source import open_split
from moonseg_jax.errors import UserError
from moonseg_jax.types import Example, Scene

COUNTS = {"train": 5, "val": 3, "val_unseen": 2}


def build(out, **changes):
    return build_shapes(out, **{**COUNTS, "seed": 4, "level": 2, "progress": False, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "shapes"
    build(out)
    return out


def assert_same(read, drawn):
    assert len(read.examples) == len(drawn.examples)
    for one, other in zip(read.examples, drawn.examples):
        np.testing.assert_array_equal(one.image, other.image)
        for field in dataclasses.fields(Example):
            if field.name != "image":
                assert getattr(one, field.name) == getattr(other, field.name), field.name


@pytest.mark.parametrize("split", COUNTS)
def test_what_is_read_is_what_was_drawn_in_the_order_of_the_index(data, split):
    source = open_split(data, split)
    assert len(source) == COUNTS[split]
    for index in reversed(range(len(source))):
        assert_same(source[index], generate_scene(4, index, 2, split))


def test_the_manifest_says_what_was_built(data):
    assert json.loads((data / "moonseg_data.json").read_text()) == {
        "name": "shapes",
        "settings": {"seed": 4, "level": 2},
        "splits": COUNTS,
        "path": "shapes/level2_seed4/1.0.0",
        "complete": True,
    }
    assert sorted(path.name for path in data.iterdir()) == ["moonseg_data.json", "shapes"]


def test_the_same_build_again_keeps_the_files(data):
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    build(data)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


@pytest.mark.parametrize("change", [{"seed": 5}, {"level": 1}, {"train": 6}])
def test_another_data_set_in_the_folder_is_refused(data, change):
    with pytest.raises(UserError, match=r"already holds another data set.*seed=4"):
        build(data, **change)


def test_an_interrupted_build_can_be_finished(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("data_pipelines.shapes.builder.generate_scene", interrupted)
        build(tmp_path)
    with pytest.raises(UserError, match="not finished"):
        open_split(tmp_path, "train")
    build(tmp_path)
    assert len(open_split(tmp_path, "train")) == 5


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        build(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .* name another folder"):
        build(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 0}, "train is 0"),
        ({"val": -1}, "val is -1"),
        ({"seed": -1}, "seed"),
        ({"level": 9}, "level 9"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        build(tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


def test_opening_what_is_not_there_says_so(data, tmp_path):
    with pytest.raises(UserError, match="holds no data set"):
        open_split(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'test'; it has train, val, val_unseen"):
        open_split(data, "test")
    with pytest.raises(UserError, match="has 3 scenes, 500 are needed"):
        open_split(data, "val", at_least=500)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("dataset_info.json", 0.0),
        ("shapes-train.array_record-00000-of-00001", 0.0),
        ("shapes-train.array_record-00000-of-00001", 0.5),
    ],
)
def test_a_data_set_whose_files_are_gone_or_cut_short_is_named(data, tmp_path, name, kept):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    (file,) = copy.rglob(name)
    content = file.read_bytes()
    file.unlink()
    if kept:
        file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match="the data set is damaged"):
        open_split(copy, "train")


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "moonseg_data.json").write_text("{")
    with pytest.raises(UserError, match=r"moonseg_data\.json is damaged"):
        open_split(tmp_path, "train")


def test_tensorflow_is_never_imported(data):
    open_split(data, "train")[0]
    assert "tensorflow" not in sys.modules


def test_references_and_missing_targets_survive_the_schema():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    shared = {"image": image, "image_id": 9}
    scene = Scene(
        examples=(
            Example(phrase="nothing here", target=None, example_id=1, **shared),
            Example(
                phrase="this",
                target={"size": [4, 6], "counts": b"08d0"},
                example_id=2,
                references=((0.25, 0.5), (0.5, 0.5, 0.25, 0.125)),
                tags=("kind",),
                **shared,
            ),
        )
    )
    record = to_record(scene)
    names = ("phrase", "example_id", "counts", "has_target", "tags")
    columns = {name: [one[name] for one in record["examples"]] for name in names}
    for name in ("phrase", "tags"):
        columns[name] = [text.encode() for text in columns[name]]
    stored = {
        "image": encode_png(image),
        "image_id": 9,
        "examples": columns,
        "references": {name: [one[name] for one in record["references"]] for name in ("example", "values")},
    }
    assert_same(to_scene(stored), scene)
