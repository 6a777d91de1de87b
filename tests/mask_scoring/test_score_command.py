"""`moonseg score` from files to figures: every way to name a sample and to give a mask, and every way to be wrong."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from moonseg_jax.cli import main

HEIGHT, WIDTH = 20, 30
SQUARE, OTHER = (4, 4, 14, 14), (2, 18, 12, 28)


def polygon(top, left, bottom, right):
    return [left, top, right, top, right, bottom, left, bottom]


def drawn(*box):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    if box:
        mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def rle(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def png(mask):
    held = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(held, "PNG")
    return held.getvalue()


@pytest.fixture
def files(tmp_path):
    """A folder of gRefCOCO with two samples with a target, one of two parts, and one without."""
    photo = {"id": 7, "file_name": "7.jpg", "height": HEIGHT, "width": WIDTH}
    annotations = [
        {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": [polygon(*box)]}
        for number, box in ((100, SQUARE), (101, OTHER))
    ]
    categories = [{"id": 1, "name": "cat"}]
    content = {"images": [photo], "annotations": annotations, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(content))

    def said(number, target, *sentences):
        listed = [{"sent": text, "sent_id": 10 * number + k} for k, text in enumerate(sentences)]
        return {"ref_id": number, "image_id": 7, "ann_id": target, "split": "val", "sentences": listed}

    entries = [said(1, [100], "left cat", "left cat"), said(2, [100, 101], "both"), said(3, [-1], "a dog")]
    (tmp_path / "grefs(unc).json").write_text(json.dumps(entries))
    return tmp_path


def score(files, lines, capsys, *options, dataset=("--dataset", "grefcoco", "--split", "val"), annotations=None):
    """Exit code, figures (None after an error) and what was said on standard error."""
    predictions = files / "masks.jsonl"
    predictions.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    asked = ["--predictions", str(predictions), "--annotations", str(annotations or files), *dataset, *options]
    code = main(["score", *asked, "--json", str(files / "out.json")])
    said = capsys.readouterr()
    return code, json.loads((files / "out.json").read_text()) if code == 0 else None, said.err + said.out


def test_every_kind_of_mask_and_every_way_to_name_a_sample(files, capsys):
    (files / "mask.png").write_bytes(png(drawn(*SQUARE)))
    both = drawn(*SQUARE) | drawn(*OTHER)
    uri = "data:image/png;base64," + base64.b64encode(png(both)).decode()
    lines = [
        {"ann_id": 100, "sentence": " left  cat", "png": "mask.png"},
        {"ann_id": [101, 100], "sentence": "both", "png": uri},
        {"ann_id": -1, "image_id": 7, "sentence": "a dog", "polygon": []},
    ]
    code, result, _ = score(files, lines, capsys)
    assert code == 0
    figures = result["figures"]
    assert (figures["n"], figures["miou"], figures["n_acc"], figures["t_acc"]) == (4, 1.0, 1.0, 1.0)
    assert result["statuses"] == {"answered": 4, "missing": 0, "empty": 1} and result["lines"] == 3


def test_a_shifted_mask_scores_what_it_is_by_hand_and_what_is_missing_counts_as_empty(files, capsys):
    shifted = drawn(4, 6, 14, 16)
    lines = [{"id": 0, "rle": rle(shifted)}, {"id": "3", "polygon": [polygon(*SQUARE)]}]
    code, result, said = score(files, lines, capsys)
    assert code == 0
    # 10 x 10 moved by 2: 80 of 120. The second "left cat" and "both" have no line; "a dog" has no target.
    assert result["figures"]["miou"] == pytest.approx((80 / 120 + 0 + 0 + 0) / 4, abs=1e-12)
    assert result["figures"]["ciou"] == pytest.approx(80 / (120 + 100 + 200 + 100), abs=1e-12)
    assert (result["figures"]["n_acc"], result["figures"]["t_acc"]) == (0.0, pytest.approx(1 / 3))
    assert result["statuses"]["missing"] == 2 and "2 missing (count as empty)" in said
    (low, high) = result["intervals"]["miou"]
    assert 0 <= low < result["figures"]["miou"] < high <= 1


def test_instances_of_a_file_and_an_uncompressed_encoding(files, capsys):
    runs = {"size": [HEIGHT, WIDTH], "counts": [18 * HEIGHT + 2]}
    for column in range(10):
        runs["counts"] += [10, 10 if column < 9 else 2 * HEIGHT + 8]
    lines = [{"id": 100, "polygon": [polygon(*SQUARE)]}, {"id": 101, "rle": runs}]
    code, result, _ = score(files, lines, capsys, dataset=(), annotations=files / "instances.json")
    assert code == 0 and result["figures"]["miou"] == 1.0 and result["figures"]["n"] == 2


GOOD = {"id": 0, "polygon": [polygon(*SQUARE)]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, "{broken"], "line 2: not JSON"),
        ([GOOD, "[1]"], r"line 2: expected an object, found \[1\]"),
        ([GOOD, {"id": 0, "rle": {}}], "line 2: id 0 was answered in line 1 already"),
        ([{"id": 17, "rle": {}}, {"id": 18, "rle": {}}], "line 1: id 17 does not occur .* nor do 1 more"),
        ([{"polygon": []}], "line 1: says of no sample; give id, or ann_id and sentence"),
        ([{"id": True, "polygon": []}], "line 1.id: expected a number or a text, found True"),
        ([{"ann_id": -1, "sentence": "a dog", "polygon": []}], "line 1.image_id: missing"),
        ([{"id": 0}], "line 1: expected one of rle, polygon, png, found none"),
        ([{"id": 0, "rle": {}, "png": ""}], "line 1: expected one of rle, polygon, png, found rle and png"),
        ([{"id": 0, "rle": rle(np.zeros((30, 20), bool))}], "line 1.rle: no run-length encoding .* 20x30 pixels"),
        ([{"id": 0, "rle": {"size": [20, 30], "counts": "0"}}], "line 1.rle: no run-length encoding"),
        ([{"id": 0, "polygon": [[1, 1, 5, 5]]}], "line 1.polygon: .* at least 3 vertices"),
        ([{"id": 0, "png": "gone.png"}], "line 1.png: .*gone.png"),
        ([{"id": 0, "png": "data:image/png;base64,@@"}], "line 1.png"),
        ([{"id": 0, "png": "data:image/jpeg;base64,AA"}], "line 1.png: only data:image/png"),
    ],
    ids=lambda value: None if isinstance(value, list) else value[:24],
)
def test_bad_lines_are_one_clear_error(files, capsys, lines, message):
    import re

    code, _, said = score(files, lines, capsys)
    assert code == 2 and said.count("\n") == 1
    assert re.search(message, said), said


def test_a_png_of_another_size_is_refused_with_both_sizes(files, capsys):
    (files / "small.png").write_bytes(png(np.ones((5, 6), bool)))
    code, _, said = score(files, [{"id": 0, "png": "small.png"}], capsys)
    assert code == 2 and "has 5x6 pixels, the photo 20x30 (HxW)" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset", "grefcoco"), "a folder has splits; name one with --split"),
        (("--split", "val"), "say of which data set: --dataset refcoco|"),
        (("--dataset", "grefcoco", "--split", "test"), "has no split 'test'; it has val"),
        (("--dataset", "refcoco", "--split", "val"), "refs(unc).p"),
    ],
    ids=["split", "dataset", "no-such-split", "no-such-file"],
)
def test_annotations_that_are_not_what_is_asked_for(files, capsys, options, message):
    code, _, said = score(files, [GOOD], capsys, dataset=options)
    assert code == 2 and message in said


def test_a_built_data_set_is_scored_by_the_ids_of_its_examples(tmp_path, capsys):
    from data_pipelines.build import build_shapes
    from data_pipelines.source import open_split

    build_shapes(tmp_path / "data", train=2, val=2, seed=0, level=1)
    capsys.readouterr()
    lines = [
        {"id": example.example_id, "rle": {"size": example.target["size"], "counts": example.target["counts"].decode()}}
        for scene in (open_split(tmp_path / "data", "val")[i] for i in range(2))
        for example in scene.examples
    ]
    code, result, _ = score(tmp_path, lines[1:], capsys, dataset=("--split", "val"), annotations=tmp_path / "data")
    assert code == 0
    assert result["figures"]["miou"] == pytest.approx((len(lines) - 1) / len(lines))
