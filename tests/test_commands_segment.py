"""`moonseg segment` for several phrases and folders."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from micro_segmenter import micro_segmenter
from PIL import Image
from pycocotools import mask as coco_mask
from tiny_models import scenes

from moonseg_jax import cli
from moonseg_jax.overlay import OPACITY, overlay_picture
from moonseg_jax.paths.path_file import read_path
from moonseg_jax.predict import Segmenter

PHRASES = ["the red star", "the ring", "the small blue square"]


@pytest.fixture(scope="module", autouse=True)
def _compiling_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def moonseg(monkeypatch, capsys):
    """Runs a command in this process with the smallest model: (exit code, standard output, standard error)."""
    monkeypatch.setattr(Segmenter, "load", lambda *of, **settings: micro_segmenter())

    def run(*words):
        code = cli.main(["segment", *map(str, words)])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, scene in enumerate(scenes(3)):
        Image.fromarray(scene.examples[0].image).save(folder / f"{number}.png")
    return folder


def lines_of(out):
    return [json.loads(line) for line in (out / "segmentations.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_folder_gives_files_and_a_line_for_every_answer(moonseg, photos, tmp_path):
    out = tmp_path / "out"
    code, said, _ = moonseg(photos, *PHRASES, "-o", out)
    assert code == 0 and said.startswith("9 answers") and "for 3 images" in said
    lines = lines_of(out)
    assert [(line["file"], line["phrase"]) for line in lines] == [
        (f"{number}.png", phrase) for number in range(3) for phrase in PHRASES
    ]
    for line in lines:
        answer = micro_segmenter().segment(photos / line["file"], line["phrase"])
        drawn = np.array(Image.open(out / line["mask"])) > 0
        np.testing.assert_array_equal(drawn, answer.mask)
        np.testing.assert_array_equal(coco_mask.decode(line["coco"]["segmentation"]) > 0, answer.mask)
        assert (line["status"], line["path"]) == (answer.status, answer.to_moondream()["path"])
        assert line["box"] == answer.to_moondream().get("bbox")
        assert read_path(out / line["svg"]).text.count("M") == line["path"].count("M")
        assert (out / line["overlay"]).is_file()
    assert len(list(out.iterdir())) == 3 * (3 * 2 + 1) + 1


def test_a_file_that_cannot_be_read_is_told_and_the_others_go_on(moonseg, photos, tmp_path):
    (photos / "0a.jpg").write_bytes(b"no image")
    (photos / "empty.png").touch()
    (photos / "notes.txt").write_text("not looked at")
    code, said, error = moonseg(photos, PHRASES[0], "-o", tmp_path / "out")
    assert code == 1 and said.startswith("3 answers")
    assert "2 images cannot be read, the others are answered: 0a.jpg, empty.png" in error
    assert "left out, no images by their names: notes.txt" in error
    statuses = {line["file"]: line["status"] for line in lines_of(tmp_path / "out")}
    assert set(statuses) == {"0.png", "1.png", "2.png", "0a.jpg", "empty.png"}
    assert statuses["0a.jpg"].startswith("failed: ") and "not a readable image" in statuses["0a.jpg"]


def test_one_image_takes_several_phrases_and_references(moonseg, photos, tmp_path):
    words = (photos / "0.png", *PHRASES, "--spatial-ref", "0.2,0.3", "--spatial-ref", "0.1,0.1,0.5,0.9")
    code, _, _ = moonseg(*words, "-o", tmp_path / "out")
    references = [(0.2, 0.3), (0.1, 0.1, 0.5, 0.9)]
    expected = micro_segmenter().segment(photos / "0.png", PHRASES, references)
    assert code == 0 and [line["path"] for line in lines_of(tmp_path / "out")] == [
        answer.to_moondream()["path"] for answer in expected
    ]


def test_bad_words_are_refused_before_anything_is_written(moonseg, photos, tmp_path):
    image, out = photos / "0.png", tmp_path / "out"
    (tmp_path / "bare").mkdir()
    for words, said in [
        ((image, *PHRASES, "-o", tmp_path / "mask.png"), "several answers go into a folder"),
        ((photos, PHRASES[0], "-o", photos), "that is the folder of the images"),
        ((tmp_path / "bare", PHRASES[0], "-o", out), "no images"),
        ((photos, PHRASES[0], " ", "-o", out), "the phrase is empty"),
        ((photos, PHRASES[0], "-o", out, "--spatial-ref", ".5,.5"), "goes with one image"),
        ((image, *PHRASES, "-o", out, "--spatial-ref", ".5,1.5"), "inside the image"),
        ((image, *PHRASES, "-o", out, "--spatial-ref", "left"), "X,Y or"),
        ((image, *PHRASES, "-o", out, "--batch", "0"), "--batch must be at least 1"),
        ((photos, PHRASES[0], "the dragon", "-o", out), "'dragon'"),
    ]:
        code, _, error = moonseg(*words)
        assert code == 2 and said in error, words
        assert not (out / "segmentations.jsonl").exists() or not lines_of(out)
        assert not (tmp_path / "mask.png").exists()


def test_a_folder_with_answers_is_not_written_over(moonseg, photos, tmp_path):
    assert moonseg(photos / "0.png", *PHRASES, "-o", tmp_path / "out")[0] == 0
    code, _, error = moonseg(photos / "0.png", *PHRASES, "-o", tmp_path / "out")
    assert code == 2 and "holds segmentations.jsonl already" in error


def test_phrases_of_any_script_make_file_names(moonseg, photos, tmp_path, monkeypatch):
    tokens = micro_segmenter().policy.vocabulary.encode_phrase("red star")
    vocabulary = type(micro_segmenter().policy.vocabulary)
    monkeypatch.setattr(vocabulary, "encode_phrase", lambda self, phrase: tokens)
    phrases = ("../../红色的 звезда", "⭐", "a/b\\c" * 40)
    assert moonseg(photos / "0.png", *phrases, "-o", tmp_path / "out")[0] == 0
    names = [line["mask"] for line in lines_of(tmp_path / "out")]
    assert names[:2] == ["0.png.1-红色的-звезда.png", "0.png.2-phrase.png"] and len(names[2]) < 60
    assert all((tmp_path / "out" / name).is_file() for name in names)


def test_an_overlay_colours_the_mask_and_names_the_phrase():
    image = np.full((48, 60, 3), 100, np.uint8)
    answer = micro_segmenter().segment(image, PHRASES[0])
    mask = np.zeros((48, 60), bool)
    mask[10:30, 20:50] = True
    picture = np.asarray(overlay_picture([dataclasses.replace(answer, mask=mask)]))
    assert picture.shape[1] == 480 and picture.shape[0] > 48 * 8, "small photos are enlarged; a legend below"
    mixed = ((1 - OPACITY) * 100 + OPACITY * np.array([230, 57, 70])).astype(int)
    np.testing.assert_array_equal(picture[8 * 25, 8 * 25], mixed)
    np.testing.assert_array_equal(picture[8 * 40, 8 * 10], [100, 100, 100])
    assert (picture[48 * 8 :] < 60).any(), "words in the legend"
