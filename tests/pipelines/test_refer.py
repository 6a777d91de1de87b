"""Building data sets of referring expressions from files in REFER's layout."""

import os
import pathlib
import pickle

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from refer_files import (
    HEIGHT,
    OUTSIDE,
    SQUARE,
    TWO_PARTS,
    WIDTH,
    instance,
    instances,
    ref,
    refs,
    write_files,
    write_photos,
)

from data_pipelines.refer import known
from data_pipelines.refer.build import build_refer
from data_pipelines.refer.plain_pickle import read_plain_pickle
from data_pipelines.refer.refs import Reference, Sentence, read_references
from data_pipelines.source import open_split
from moonseg_jax import cli
from moonseg_jax.errors import UserError

REAL_DATA = os.environ.get("MOONSEG_REAL_DATA")


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "images")
    return tmp_path


def build(folder, expressions=None, annotations=None, name="refcoco", **options):
    write_files(folder / "files", expressions, annotations, known.expressions_file(name, "unc"))
    return build_refer(
        name, folder / "out", source=folder / "files", images=folder / "images", split_by="unc",
        progress=False, **{"partial": True, **options},
    )  # fmt: skip


def drawn(polygons):
    """The same polygons by an independent rule: their corners are whole pixels, so no edge is in doubt."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for ring in polygons:
        (left, right), (top, bottom) = ((min(axis), max(axis)) for axis in (ring[0::2], ring[1::2]))
        mask[top:bottom, left:right] = True
    return mask


def said(folder, split):
    source = open_split(folder / "out", split)
    return [[(e.phrase, e.image_id, e.example_id) for e in source[k].examples] for k in range(len(source))]


def test_every_sentence_is_an_example_of_its_photo_and_split(folder):
    manifest = build(folder)
    assert manifest.splits == {"train": 1, "val": 1, "testA": 1}
    assert said(folder, "train") == [[("left cat", 7, 0), ("the cat", 7, 1), ("the cat", 7, 3)]]
    assert said(folder, "val") == [[("dog", 9, 2)]]
    assert said(folder, "testA") == [[("bird", 8, 4)]]


def test_targets_are_the_referred_instances_and_photos_those_of_their_id(folder):
    build(folder)
    train = open_split(folder / "out", "train")[0].examples
    for example, polygons in zip(train, (SQUARE, SQUARE, TWO_PARTS), strict=True):
        np.testing.assert_array_equal(coco_mask.decode(example.target), drawn(polygons))
    for split, name in (("train", "000000000007.jpg"), ("testA", "COCO_train2014_000000000008.jpg")):
        stored = cv2.imread(str(folder / "images" / name), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(open_split(folder / "out", split)[0].examples[0].image, stored)


def test_several_targets_are_united_and_minus_one_is_no_target(folder):
    expressions = [ref(1, 7, [100, 101], "val", "both cats"), ref(2, 7, [-1], "val", "the elephant")]
    build(folder, expressions, name="grefcoco")
    both, none = open_split(folder / "out", "val")[0].examples
    np.testing.assert_array_equal(coco_mask.decode(both.target), drawn(SQUARE) | drawn(TWO_PARTS))
    assert none.target is None


def test_limit_takes_the_first_photos_of_every_split(folder):
    build(folder, [*refs(), ref(8, 8, 103, "train", "late"), ref(9, 7, 100, "train", "same photo")], limit=1)
    assert said(folder, "train") == [
        [("left cat", 7, 0), ("the cat", 7, 1), ("the cat", 7, 3), ("same photo", 7, 6)],
    ]  # fmt: skip


def test_counts_of_a_whole_file_are_compared(folder, monkeypatch):
    with pytest.raises(
        UserError, match=r"train has 2 references, not 42404 \(-42402\).*val has 1 sentences, not 10834"
    ):
        build(folder, partial=False)
    assert not (folder / "out").exists()
    monkeypatch.setitem(
        known.KNOWN_COUNTS, ("refcoco", "unc"), {"train": known.SplitCounts(sentences=3, references=2, images=1)}
    )
    assert build(folder, partial=False).splits["train"] == 1


def test_known_counts_of_refcoco_are_accepted():
    """1,500 photos, 3,811 targets and 10,834 sentences, shared out evenly."""
    sizes = known.KNOWN_COUNTS["refcoco", "unc"]
    entries = []
    for split, size in sizes.items():
        sentences = size.sentences or size.references
        for k in range(size.references):
            count = sentences // size.references + (k < sentences % size.references)
            entries.append(
                Reference(
                    id=k, image_id=k % (size.images or size.references), annotation_ids=(k,), split=split,
                    sentences=tuple(Sentence(id=0, text="") for _ in range(count)),
                )
            )  # fmt: skip
    known.refuse_other_counts("refcoco", "unc", entries)
    with pytest.raises(UserError, match=r"testB has 1809 references, not 1810 \(-1\)"):
        known.refuse_other_counts("refcoco", "unc", entries[:-1])


def test_missing_and_broken_photos_are_listed_counted_and_left_out_only_if_allowed(folder):
    (folder / "images/000000000007.jpg").unlink()
    broken = folder / "images/COCO_train2014_000000000008.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(UserError, match=r"2 of 3 photos are missing or broken, 1 may be.*--allow-missing 2"):
        build(folder, allow_missing=1)
    listed = (folder / "out/missing_images.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in listed] == ["image 7", "image 8"]
    assert "looked for COCO_train2014_000000000007.jpg, 000000000007.jpg" in listed[0]
    assert "COCO_train2014_000000000008.jpg" in listed[1]
    manifest = build(folder, allow_missing=2)
    assert manifest.splits == {"val": 1} and manifest.settings["missing_images"] == 2
    assert len((folder / "out/missing_images.txt").read_text().splitlines()) == 2


def test_photos_of_another_size_count_as_broken(folder):
    annotations = instances()
    annotations["images"][2]["width"] = WIDTH + 1
    with pytest.raises(UserError, match=r"1 of 3 photos.*32x24 pixels, its annotations say 33x24"):
        build(folder, annotations=annotations)


def test_phrases_that_cannot_be_examples_are_listed_and_keep_their_numbers(folder, capsys):
    annotations = instances()
    annotations["annotations"].append(instance(104, 9, OUTSIDE))
    expressions = [ref(1, 7, 100, "val", " ", "x" * 10_000, " the  cat "), ref(2, 9, 104, "val", "far away")]
    manifest = build(folder, expressions, annotations)
    assert said(folder, "val") == [[("the cat", 7, 2)]]
    assert manifest.settings["refused_phrases"] == 3
    lines = (folder / "out/refused_phrases.txt").read_text().splitlines()
    assert [line.split("[", 1)[1] for line in lines] == [
        "0].sentences[0]: the phrase is empty",
        "0].sentences[1]: 10000 characters, at most 1000 are taken",
        "1].sentences[0]: the mask of its target has no pixel in the photo",
    ]
    assert "3 expressions left out" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/should_not_exist",)


@pytest.mark.parametrize(
    "value", [[Evil()], {"a": pathlib.PurePosixPath("x")}, np.zeros(3)], ids=("command", "path in a dict", "array")
)
def test_pickles_that_ask_for_more_than_plain_values_are_refused_before_anything_runs(tmp_path, value):
    file = tmp_path / "refs(unc).p"
    file.write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match=r"refused \(it asks for"):
        read_plain_pickle(file)


@pytest.mark.parametrize("content", [b"", b"\x80", b"garbage", pickle.dumps([1, 2, 3])[:-3], b"(lp0\nI1\na"])
def test_broken_pickles_are_one_error(tmp_path, content):
    file = tmp_path / "refs(unc).p"
    file.write_bytes(content)
    with pytest.raises(UserError, match="refused"):
        read_plain_pickle(file)


def test_pickles_of_python_2_are_read(tmp_path):
    file = tmp_path / "refs(unc).p"
    file.write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xc3\\xa9'\np3\nsa.")
    assert read_plain_pickle(file)[0] == [{"sent": "café"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ann_id": "100"}, r"\[0\].ann_id: expected int, found '100'"),
        ({"ann_id": [100, -1]}, r"\[0\].ann_id: \[100, -1\] says both"),
        ({"ann_id": []}, r"\[0\].ann_id: expected the ids of instances or \[-1\]"),
        ({"sentences": []}, r"\[0\].sentences: the list is empty"),
        ({"sentences": [{"sent_id": 1}]}, r"\[0\].sentences\[0\].sent: missing"),
        ({"split": "../x"}, r"\[0\].split: '../x' is no name of a split"),
        ({"ref_id": 5}, r"\[1\].ref_id: 5 occurs twice"),
        ({"image_id": 1}, r"\[0\].image_id: .* has no image 1"),
        ({"ann_id": 1}, r"\[0\].ann_id: .* has no annotation 1"),
        ({"ann_id": 102}, r"\[0\].ann_id: annotation 102 lies in image 9, not 7"),
    ],
)  # fmt: skip
def test_entries_that_are_not_what_refer_says_are_named(folder, change, message):
    expressions = refs()
    expressions[0].update(change)
    with pytest.raises(UserError, match=message):
        build(folder, expressions)


@pytest.mark.parametrize("value", [{}, [], 5, [5]])
def test_values_that_are_no_list_of_expressions_are_refused(tmp_path, value):
    write_files(tmp_path, value)
    with pytest.raises(UserError, match=r"a REFER file is a list|the list is empty|expected a dictionary"):
        read_references(tmp_path / "refs(unc).p")


def test_ids_that_occur_twice_in_the_annotations_are_refused(folder):
    annotations = instances()
    annotations["annotations"].append(instance(101, 7))
    with pytest.raises(UserError, match=r"annotations\[4\].id: 101 occurs twice"):
        build(folder, annotations=annotations)


def test_the_command_says_what_is_needed_and_where_it_lives(folder, capsys):
    write_files(folder / "files")
    words = ["data", "build", "refcoco", "--from", f"{folder}/files", "--images", f"{folder}/images"]
    assert cli.main([*words, "--out", f"{folder}/out", "--partial"]) == 0
    printed = capsys.readouterr()
    assert "refs(unc).p and instances.json" in printed.err and "refcoco.zip" in printed.err
    assert "train 1 photos, val 1 photos, testA 1 photos" in printed.out
    assert cli.main([*words, "--out", f"{folder}/out", "--split-by", "google", "--partial"]) == 2
    assert "refs(google).p" in capsys.readouterr().err


@pytest.mark.skipif(REAL_DATA is None, reason="MOONSEG_REAL_DATA names no folder of real data")
def test_real_refcocog_files_are_read(tmp_path):
    data = pathlib.Path(REAL_DATA)
    options = {"source": data / "refer/refcocog", "images": data / "coco/images", "split_by": "umd", "progress": False}
    with pytest.raises(UserError, match=r"val has 6 sentences, not 4896"):
        build_refer("refcocog", tmp_path / "out", **options)
    assert build_refer("refcocog", tmp_path / "out", partial=True, **options).splits == {"val": 2}
    source = open_split(tmp_path / "out", "val")
    bear = next(e for k in range(2) for e in source[k].examples if e.phrase.startswith("the torso of a brown furry"))
    assert bear.image_id == 309
    # The annotation says an area of 17,341 square pixels.
    assert abs(int(coco_mask.area(bear.target)) - 17_341) < 350
