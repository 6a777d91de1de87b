"""`moonseg data describe`: numbers worked by hand, and a picture with the outlines where they belong."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from data_pipelines.build import build_shapes
from data_pipelines.describe.run import describe
from data_pipelines.describe.sheet import COLUMNS, OUTLINE, SIDE, contact_sheet
from data_pipelines.describe.statistics import ExampleNumbers, parts_and_holes, summary
from moonseg_jax.cli import main
from moonseg_jax.errors import UserError
from moonseg_jax.types import Example


def test_parts_and_holes_are_counted():
    mask = np.zeros((40, 60), bool)
    assert parts_and_holes(mask) == (0, 0)
    mask[2:20, 2:20] = True
    mask[5:8, 5:8] = mask[10:14, 10:14] = False
    mask[30:35, 40:50] = True
    assert parts_and_holes(mask) == (2, 2)
    mask[11:13, 11:13] = True
    assert parts_and_holes(mask) == (3, 2)


def test_summary_counts_and_spreads():
    numbers = [
        ExampleNumbers(words=w, characters=10 * w, area=a, parts=p, holes=h, tokens=t, traced_iou=0.9, is_cut=t == 44)
        for w, a, p, h, t in ((1, 0.1, 1, 0, 20), (2, 0.2, 2, 1, 44), (3, 0.3, 1, 0, 30))
    ]
    found = summary([*numbers, ExampleNumbers(words=6, characters=60)], 2, 44)
    counts = {name: found[name] for name in ("photos", "phrases", "without_target", "several_parts", "with_holes")}
    assert counts == {"photos": 2, "phrases": 4, "without_target": 1, "several_parts": 1, "with_holes": 1}
    assert (found["at_budget"], found["cut"]) == (1, 1)
    assert found["spread"]["words"] == pytest.approx(
        {"mean": 3.0, "p10": 1.3, "p50": 2.5, "p90": 5.1, "p99": 5.91, "max": 6.0}
    )
    assert found["spread"]["area"]["mean"] == pytest.approx(0.2)


def test_the_sheet_shows_outlines_on_their_photos():
    mask = np.zeros((60, 120), np.uint8, order="F")
    mask[20:40, 30:90] = 1
    photo = np.full((60, 120, 3), 100, np.uint8)
    example = Example(
        image=photo, phrase="a bar", target=coco_mask.encode(mask), image_id=1, example_id=1
    )  # fmt: skip
    sheet = np.asarray(contact_sheet([example]))
    red = np.argwhere((sheet == OUTLINE).all(axis=-1))
    # The photo is stretched by two and lies in the middle of its tile: 60 pixels above and below.
    (top, left), (bottom, right) = red.min(axis=0), red.max(axis=0)
    assert (top, bottom, left, right) == (60 + 40, 60 + 79, 60, 179)
    assert sheet.shape[1] == COLUMNS * SIDE and (sheet[70, 10] == 100).all()


def test_the_command_prints_writes_and_refuses(tmp_path, capsys):
    build_shapes(tmp_path / "data", train=3, val=2, seed=0, level=2, progress=False)
    code = main(
        ["data", "describe", str(tmp_path / "data"), "--split", "val", "-o", str(tmp_path / "s.png"),
         "--json", str(tmp_path / "d.json")]
    )  # fmt: skip
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "d.json").read_text())
    assert code == 0 and "shapes, split val: 2 of 2 photos" in said and "contact sheet" in said
    assert found["photos"] == 2 and 0.9 < found["spread"]["traced_iou"]["p50"] <= 1
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.format == "PNG"
    for options, message in (
        ({"split": "test"}, "has no split 'test'"),
        ({"sheet": tmp_path / "s.jpg"}, "let the name end in .png"),
        ({"json_file": tmp_path / "no" / "d.json"}, "there is no folder"),
        ({"limit": 0}, "at least one photo"),
    ):
        with pytest.raises(UserError, match=message):
            describe(tmp_path / "data", **{"split": "val", "preset": "tiny", "progress": False, **options})
