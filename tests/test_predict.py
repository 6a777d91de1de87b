"""Image and phrase in; path, box and mask out, with the checkpoints shipped with the package."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax import cli
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Prediction
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.path_file import read_path
from moonseg_jax.paths.svg import parse_polygons
from moonseg_jax.predict import Segmenter
from moonseg_jax.shipped import shipped
from moonseg_jax.status import EMPTY_COARSE, EMPTY_PATH, NOT_ASKED, REFINED, STATUSES

SCENE = generate_scene(4_000, 0, 2, "val")
PHRASE = SCENE.examples[0].phrase


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.load()


@pytest.fixture(scope="module")
def answer(segmenter):
    return segmenter.segment(SCENE.examples[0].image, PHRASE)


def test_an_answer_is_consistent_with_itself(answer):
    assert answer.status == REFINED and 0.5 < answer.score < 1.5
    assert answer.mask.shape == answer.coarse_mask.shape == SCENE.examples[0].image.shape[:2]
    x0, y0, x1, y1 = answer.box
    assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    cx, cy, w, h = answer.drawn_box
    size = np.array(answer.mask.shape[::-1])
    polygons = [(p * [w, h] + [cx - w / 2, cy - h / 2]) * size for p in parse_polygons(answer.path)]
    drawn = fill(polygons, *answer.mask.shape)
    union = (drawn | answer.coarse_mask).sum()
    assert (drawn & answer.coarse_mask).sum() / union > 0.98, "the SVG path draws the coarse mask"


def test_answers_are_written_in_three_formats(answer, tmp_path):
    answer.save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")) > 0, answer.mask)
    answer.save(str(tmp_path / "B.PNG"))
    assert (tmp_path / "B.PNG").read_bytes() == (tmp_path / "a.png").read_bytes()
    answer.save(tmp_path / "a.svg")
    assert f'd="{answer.refined_path}"' in (tmp_path / "a.svg").read_text()
    assert f"<title>refined path of: {PHRASE}</title>" in (tmp_path / "a.svg").read_text()
    answer.save(tmp_path / "a.json")
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["phrase"] == PHRASE and saved["coco"]["area"] == answer.mask.sum()
    assert (saved["status"], saved["path_is"], saved["path"]) == (REFINED, "refined", answer.refined_path)
    assert tuple(saved["bbox"].values()) == answer.refined_box
    assert saved["coarse"]["path"] == answer.path
    assert tuple(saved["coarse"]["drawn_box"].values()) == answer.drawn_box
    with pytest.raises(UserError, match=r"\.png, \.svg, \.json"):
        answer.save(tmp_path / "a.gif")
    with pytest.raises(UserError, match="cannot be written"):
        answer.save(tmp_path / "nowhere" / "a.png")


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_the_written_paths_draw_the_refined_mask(answer, tmp_path):
    height, width = answer.mask.shape
    for name in ("a.svg", "a.json"):
        answer.save(tmp_path / name)
        drawn = fill(read_path(tmp_path / name).polygons(height, width), height, width)
        assert iou(drawn, answer.mask) > 0.95 > iou(drawn, answer.coarse_mask)
    lines = answer.lines()
    assert set(lines.commands) == {"M", "L", "Z"} and all(n == int(n) for numbers in lines.numbers for n in numbers)
    assert iou(fill(lines.polygons(height, width), height, width), answer.mask) > 0.99
    rows, columns = np.flatnonzero(answer.mask.any(axis=1)), np.flatnonzero(answer.mask.any(axis=0))
    extent = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    np.testing.assert_allclose(answer.refined_box, extent)


def test_without_refinement_the_coarse_path_is_the_answer(segmenter, answer, tmp_path):
    coarse = Segmenter(segmenter.policy, segmenter.params, None).segment(SCENE.examples[0].image, PHRASE)
    assert coarse.status == NOT_ASKED and np.isnan(coarse.score) and coarse.refined is None
    np.testing.assert_array_equal(coarse.mask, answer.coarse_mask)
    coarse.save(tmp_path / "a.json")
    saved = json.loads((tmp_path / "a.json").read_text())
    assert (saved["path_is"], saved["path"], saved["score"]) == ("coarse", answer.path, None)
    coarse.save(tmp_path / "a.svg")
    assert "<title>coarse path" in (tmp_path / "a.svg").read_text() and answer.path in (tmp_path / "a.svg").read_text()


def test_a_policy_without_a_refiner_says_so_unless_none_is_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"holds no refiner weights.*moonseg train refiner.*--no-refine"):
        Segmenter.load(shipped("sft"))
    assert Segmenter.load(shipped("sft"), refine=False).refiner is None
    assert Segmenter.load(shipped("sft"), iterations=0).refiner is None
    assert Segmenter.load(shipped("sft"), shipped("refiner"), iterations=2).refiner.iterations == 2
    with pytest.raises(UserError, match="must not be negative, got -1"):
        Segmenter.load(iterations=-1)
    with pytest.raises(UserError, match="exclude each other"):
        Segmenter.load(shipped("sft"), shipped("refiner"), refine=False)
    with pytest.raises(UserError, match=r"refiner\.safetensors is missing"):
        Segmenter.load(shipped("sft"), shipped("rl"))


@pytest.mark.parametrize(("height", "width"), [(1, 90), (90, 1)])
def test_images_of_a_single_row_or_column_are_answered(segmenter, monkeypatch, height, width):
    box, whole = np.array([0.5, 0.5, 1.0, 1.0], np.float32), np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])

    def decode(params, rows):
        return [[Prediction(example=rows[0][0], box=box, polygons=(whole,), tokens=9)]]

    monkeypatch.setattr(segmenter, "_decoder", lambda crops, phrases, one_by_one: (decode, 1))
    answer = segmenter.segment(np.full((height, width, 3), 200, np.uint8), PHRASE)
    assert answer.coarse_mask.all() and answer.mask.shape == (height, width)
    assert answer.status in STATUSES and (answer.refined is not None) == (answer.status == REFINED)


def test_an_image_of_another_size_is_answered_at_its_own_size(segmenter):
    wide = np.asarray(Image.fromarray(SCENE.examples[0].image).resize((300, 200)))
    assert segmenter.segment(wide, PHRASE).mask.shape == (200, 300)


@pytest.mark.parametrize(("polygons", "status"), [((), EMPTY_PATH), ((np.eye(3)[:, :2] * 0.1,), EMPTY_COARSE)])
def test_an_empty_answer_says_whether_there_was_a_path(segmenter, monkeypatch, polygons, status):
    box = np.array([0.05, 0.05, 0.1, 0.1], np.float32)

    def decode(params, rows):
        return [[Prediction(example=rows[0][0], box=box, polygons=polygons, tokens=9)]]

    monkeypatch.setattr(segmenter, "_decoder", lambda crops, phrases, one_by_one: (decode, 1))
    answer = segmenter.segment(np.zeros((1, 1, 3), np.uint8), PHRASE)
    assert answer.status == status and not answer.mask.any()
    assert np.isnan(answer.score) and answer.to_json()["score"] is None, "an empty mask has no confidence"
    assert answer.to_moondream()["path"] == answer.path
    assert ("bbox" in answer.to_moondream()) == bool(polygons)


def test_the_public_answer_is_path_and_bbox_of_the_refined_mask(segmenter, answer):
    public = answer.to_moondream()
    assert list(public) == ["path", "bbox"] and list(public["bbox"]) == ["x_min", "y_min", "x_max", "y_max"]
    assert (public["path"], tuple(public["bbox"].values())) == (answer.refined_path, answer.refined_box)
    coarse = segmenter.segment(SCENE.examples[0].image, PHRASE, refine=False)
    assert coarse.status == NOT_ASKED and np.array_equal(coarse.mask, answer.coarse_mask)
    assert coarse.to_moondream() == {"path": coarse.path, "bbox": dict(zip(public["bbox"], coarse.box))}


def test_a_phrase_for_what_is_not_there_gets_no_confidence_but_the_refiners(segmenter, monkeypatch):
    told = []
    refine = segmenter.refiner.refine
    monkeypatch.setattr(segmenter.refiner, "refine", lambda *of: told.append(refine(*of)) or told[-1])
    absent = segmenter.segment(np.full((96, 96, 3), 120, np.uint8), "the red star")
    assert absent.status in STATUSES and absent.score == pytest.approx(told[0][0].score, nan_ok=True)
    assert not absent.mask.any() or absent.score < 0.8, "a grey wall is no clear case"


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "pillow"])
def test_images_come_as_files_bytes_and_arrays(segmenter, answer, tmp_path, kind):
    file = tmp_path / "scene.png"
    Image.fromarray(SCENE.examples[0].image).save(file)
    given = {"path": file, "text": str(file), "bytes": file.read_bytes(), "pillow": Image.open(file)}[kind]
    np.testing.assert_array_equal(segmenter.segment(given, PHRASE).mask, answer.mask)


def test_detections_say_what_is_missing(answer, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        answer.to_detections()


def test_detections_hold_mask_corners_score_and_phrase(answer):
    supervision = pytest.importorskip("supervision")
    found = answer.to_detections()
    np.testing.assert_array_equal(found.mask, answer.mask[None])
    height, width = answer.mask.shape
    np.testing.assert_allclose(found.xyxy[0] / [width, height, width, height], answer.refined_box, atol=1e-6)
    assert found.confidence[0] == pytest.approx(answer.score) and list(found["class_name"]) == [PHRASE]
    nothing = dataclasses.replace(answer, mask=np.zeros_like(answer.mask)).to_detections()
    assert len(nothing) == 0 and len(supervision.Detections.merge([found, nothing])) == 1


@pytest.mark.parametrize(
    "phrase", ["红色的星", "звезда", "النجمة الحمراء", "⭐️", "a\x00b", "𒀀", "red" * 5000, "\u202ered"]
)
def test_phrases_of_any_script_are_answered_or_refused_in_words(segmenter, phrase):
    with pytest.raises(UserError, match=r"outside the vocabulary|prompt bucket"):
        segmenter.segment(SCENE.examples[0].image, phrase)


def test_bad_input_is_named(segmenter, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image at all")
    with pytest.raises(UserError, match=r"broken\.png"):
        segmenter.segment(broken, PHRASE)
    (tmp_path / "nothing.jpg").touch()
    with pytest.raises(UserError, match=r"nothing\.jpg"):
        segmenter.segment(tmp_path / "nothing.jpg", PHRASE)
    frames = [Image.new("L", (8, 8), level) for level in (0, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for moving in (tmp_path / "moving.gif", (tmp_path / "moving.gif").read_bytes()):
        with pytest.raises(UserError, match="an animation or several pages; save the one you mean"):
            segmenter.segment(moving, PHRASE)
    with pytest.raises(UserError, match=r"'dragon'.*Known words"):
        segmenter.segment(SCENE.examples[0].image, "the red dragon")
    with pytest.raises(UserError, match="empty"):
        segmenter.segment(SCENE.examples[0].image, "  ")
    with pytest.raises(UserError, match="prompt bucket"):
        segmenter.segment(SCENE.examples[0].image, "the red star " * 9)
    with pytest.raises(UserError, match=r"model\.json is missing"):
        Segmenter.load(tmp_path)


def test_a_refiner_of_other_sizes_is_refused(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "refiner.safetensors").write_bytes((shipped("rl") / "policy.safetensors").read_bytes())
    with pytest.raises(UserError, match="other sizes"):
        Segmenter.load(shipped("rl"), folder)


def test_the_command_writes_a_mask_and_tells_errors_by_exit_code(tmp_path, capsys):
    image = tmp_path / "scene.png"
    Image.fromarray(SCENE.examples[0].image).save(image)
    assert cli.main(["segment", str(image), PHRASE, "-o", str(tmp_path / "mask.png")]) == 0
    assert Image.open(tmp_path / "mask.png").size == SCENE.examples[0].image.shape[1::-1]
    assert cli.main(["segment", str(image), "the red dragon", "-o", str(tmp_path / "mask.png")]) == 2
    assert "dragon" in capsys.readouterr().err


def test_the_command_refuses_a_checkpoint_without_refiner(tmp_path, capsys):
    image = tmp_path / "scene.png"
    Image.fromarray(SCENE.examples[0].image).save(image)
    words = ["segment", str(image), PHRASE, "-o", str(tmp_path / "mask.png")]
    assert cli.main([*words, "--checkpoint", str(shipped("sft"))]) == 2
    assert "pass --no-refine" in capsys.readouterr().err
    assert cli.main([*words, "--iterations", "-2"]) == 2
    assert "--iterations must not be negative, got -2" in capsys.readouterr().err
    assert cli.main([*words, "--checkpoint", str(shipped("sft")), "--no-refine"]) == 0
    assert capsys.readouterr().out.startswith(f"{NOT_ASKED}: ")
