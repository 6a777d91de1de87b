"""Logs that were cut short, broken or written by several, and the figures that lines give."""

import json

import numpy as np
import pytest

from moonseg_jax.baselines import convex_hull, inscribed_ellipse
from moonseg_jax.errors import UserError
from moonseg_jax.evaluation.judging import Overlap, Record, Trivial
from moonseg_jax.evaluation.rows import Place
from moonseg_jax.evaluation.sample_log import SampleLog, merge_logs, read_lines, score_of
from moonseg_jax.evaluation.summary import summarise
from moonseg_jax.evaluation.weights_digest import WINDOW, weights_digest
from moonseg_jax.scoring.sample_score import score_sample
from moonseg_jax.status import EMPTY_PATH, REFINED


def square(side, size=40):
    mask = np.zeros((size, size), bool)
    mask[:side, :side] = True
    return mask


def record(scene, position, *, drawn=10, true=10, phrase="cup"):
    """A square that is drawn over a square; none for a side of 0."""
    truth, mask = square(true), square(drawn)
    status = REFINED if drawn else EMPTY_PATH
    half = Overlap(intersection=1, union=2)
    trivial = Trivial(
        filled_box=half, ellipse=half, hull=half, flood_fill=None, other_object=None, any_object=0.25
    )  # fmt: skip
    name = f"{scene}-{position}"
    return Record(
        place=Place(scene=scene, position=position), image_id=scene, phrase=phrase, box=(0.5, None, 1.0, 1.0), path="",
        rle={}, coarse=score_sample(np.zeros_like(truth), truth, id=name, status=status),
        refined=score_sample(mask, truth, id=name, status=status), sampled=None, trivial=trivial if true else None,
    )  # fmt: skip


def write(file, records):
    with SampleLog(file) as log:
        log.append(records, 1.5)
    return file


def test_scores_come_back_as_they_were_written(tmp_path):
    written = record(3, 1, drawn=7)
    (line,) = read_lines(write(tmp_path / "log", [written]))
    assert (score_of(line, "refined"), score_of(line, "coarse")) == (written.refined, written.coarse)
    assert (line["iou"], line["coarse_iou"], line["box"]) == (0.49, 0.0, [0.5, None, 1.0, 1.0])


@pytest.mark.parametrize("torn", ["", "{", '{"id": "x"}', "é" * (1 << 20)], ids=["none", "brace", "object", "long"])
def test_a_line_without_end_is_cut_off(tmp_path, torn):
    file = write(tmp_path / "log", [record(0, 0), record(0, 1, drawn=5)])
    whole = file.read_text()
    file.write_text(whole + torn)
    log = SampleLog(file)
    assert file.read_text() == whole
    assert log.standing.after == Place(scene=0, position=1)
    assert (log.standing.count, log.standing.iou_sum, log.standing.seconds) == (2, 1.25, 1.5)


def test_a_log_that_holds_nothing_but_a_torn_line_starts_anew(tmp_path):
    (tmp_path / "log").write_text('{"id"')
    assert SampleLog(tmp_path / "log").standing.after is None and (tmp_path / "log").read_text() == ""


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    file = write(tmp_path / "log", [record(0, 0)])
    file.write_text("{}\n" + file.read_text())
    with pytest.raises(UserError, match=r"log, line 1: not a sample.*--fresh"):
        SampleLog(file)


def test_logs_of_several_processes_become_one_in_the_order_of_the_split(tmp_path):
    even = write(tmp_path / "even", [record(0, 0), record(0, 1), record(2, 0)])
    odd = write(tmp_path / "odd", [record(1, 0), record(3, 0)])
    merge_logs([even, odd], tmp_path / "all")
    assert [line["id"] for line in read_lines(tmp_path / "all")] == ["0-0", "0-1", "1-0", "2-0", "3-0"]
    with pytest.raises(UserError, match=r"gone: missing; all processes must write to one shared folder"):
        merge_logs([even, tmp_path / "gone"], tmp_path / "all")


def test_figures_worked_by_hand(tmp_path):
    """Two cups of IoU 1 and .25, a dog of .25, a phrase without target answered rightly and one answered wrongly."""
    records = [
        record(0, 0), record(0, 1, drawn=5), record(1, 0, drawn=5, phrase="dog"),
        record(2, 0, drawn=0, true=0, phrase="no cup"), record(2, 1, drawn=1, true=0, phrase="no dog"),
    ]  # fmt: skip
    log = write(tmp_path / "log", records)
    found = summarise(log, stage="both", seed=0, phrases_are_classes=True)
    refined = found["refined"]
    assert refined["miou"] == pytest.approx((1 + 0.25 + 0.25 + 1 + 0) / 5)
    assert refined["ciou"] == (100 + 25 + 25) / (300 + 1)
    assert refined["class_miou"] == pytest.approx((0.625 + 0.25 + 1 + 0) / 4)
    assert (refined["n_acc"], refined["t_acc"], refined["empty"]) == (0.5, 1.0, 1)
    assert found["coarse"]["miou"] == pytest.approx(2 / 5) and found["coarse"]["empty"] == 5
    assert (found["statuses"], found["unrefined"]) == ({REFINED: 4, EMPTY_PATH: 1}, 1)
    assert found["baselines"] == {
        "filled_box": 0.5, "ellipse": 0.5, "hull": 0.5, "any_object": 0.25, "coarse": 0.0, "n": 3
    }  # fmt: skip
    low, high = refined["intervals"]["miou"]
    assert low < refined["miou"] < high
    only = summarise(log, stage="coarse", seed=0, phrases_are_classes=False)
    assert "refined" not in only and "class_miou" not in only["coarse"]


def test_samples_that_stand_twice_are_refused(tmp_path):
    log = write(tmp_path / "log", [record(0, 0), record(0, 0)])
    with pytest.raises(UserError, match="two samples have the id '0-0'; start over with --fresh"):
        summarise(log, stage="refined", seed=0, phrases_are_classes=False)
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="no phrase was judged"):
        summarise(tmp_path / "empty", stage="refined", seed=0, phrases_are_classes=False)


def test_other_weights_have_another_digest(tmp_path):
    (tmp_path / "model.json").write_text("{}")
    weights = tmp_path / "policy.safetensors"
    weights.write_bytes(bytes(2 * WINDOW))
    first = weights_digest(tmp_path, "policy")
    assert weights_digest(tmp_path, "policy") == first
    weights.write_bytes(bytes(2 * WINDOW - 1) + b"1")
    assert weights_digest(tmp_path, "policy") != first
    (tmp_path / "refiner").mkdir()
    (tmp_path / "refiner" / "part").write_text("1")
    imported = weights_digest(tmp_path, "refiner")
    (tmp_path / "refiner" / "part").write_text("2")
    assert weights_digest(tmp_path, "refiner") != imported


def test_ellipse_and_hull_of_small_masks():
    corner = np.zeros((5, 6), bool)
    corner[1:5, 1] = corner[4, 1:5] = True
    assert inscribed_ellipse(corner).astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0],
    ]  # fmt: skip
    assert convex_hull(corner).astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0],
    ]  # fmt: skip
    nothing = np.zeros((4, 4), bool)
    assert not inscribed_ellipse(nothing).any() and not convex_hull(nothing).any()
    disk = np.hypot(*(np.indices((81, 81)) - 40)) <= 40.5
    assert np.count_nonzero(inscribed_ellipse(disk) ^ disk) == 0


def test_lines_are_plain_json(tmp_path):
    text = write(tmp_path / "log", [record(0, 0)]).read_text()
    assert "NaN" not in text and json.loads(text)["status"] == REFINED
