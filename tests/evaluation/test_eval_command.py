"""The command and its files; boxes instead of a network."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from eval_samples import samples
from pycocotools import mask as coco_mask

from data_pipelines.build import build_shapes
from data_pipelines.coco.build import build_coco
from data_pipelines.source import open_split
from moonseg_jax import cli
from moonseg_jax.baselines import BaselineSample, measure_baselines
from moonseg_jax.batch import true_mask
from moonseg_jax.evaluate import Prediction
from moonseg_jax.evaluation import run
from moonseg_jax.evaluation.answers import Answer
from moonseg_jax.evaluation.held_out import open_held_out
from moonseg_jax.evaluation.rows import Place
from moonseg_jax.evaluation.settings import EvalSettings
from moonseg_jax.refine import Refined
from moonseg_jax.refiner_evidence.sources import embedded_scenes
from moonseg_jax.shipped import shipped
from moonseg_jax.status import NOT_ASKED, REFINED
from moonseg_jax.synthetic_pairs import true_box

REAL_DATA = os.environ.get("MOONSEG_REAL_DATA")


class DiamondAnswerer:
    """Draws the diamond in every object's box; refined it is the object, sampled it is the whole image."""

    rows, iterations, unsayable = 3, 5, None

    def __init__(self, policy, refiner, *, sample_seed, **_):
        self.is_refined, self.is_sampled = refiner is not None, sample_seed is not None

    def __call__(self, block):
        return [
            self.answer(row, number, example) for row in block for number, example in enumerate(row.examples)
        ]  # fmt: skip

    def answer(self, row, number, example):
        truth = true_mask(example)
        drawn = diamond(example, truth)
        everything = Prediction(
            example=example, box=np.array([0.5, 0.5, 1, 1]), polygons=(np.array([(0, 0), (1, 0), (1, 1), (0, 1)]),),
            tokens=9,
        )  # fmt: skip
        final = Refined(mask=truth, status=REFINED, score=1.0)
        return Answer(
            place=Place(scene=row.first.scene, position=row.first.position + number), scene=row.scene, drawn=drawn,
            coarse=drawn.mask(),
            final=final if self.is_refined else Refined(mask=drawn.mask(), status=NOT_ASKED, score=float("nan")),
            sampled=everything if self.is_sampled else None,
        )  # fmt: skip


def diamond(example, truth):
    box = true_box(truth).astype(np.float32)
    corners = box[:2] + np.array([(0, -0.5), (0.5, 0), (0, 0.5), (-0.5, 0)]) * box[2:]
    return Prediction(example=example, box=box, polygons=(corners,), tokens=9)


@pytest.fixture
def moonseg(capsys, monkeypatch):
    """Runs `moonseg eval`: (exit code, standard output, standard error)."""
    monkeypatch.setattr(run, "Answerer", DiamondAnswerer)

    def command(*words):
        code = cli.main(["eval", *(str(word) for word in words)])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return command


def test_a_data_set_is_judged_and_the_command_says_where_the_results_are(moonseg, tmp_path):
    build_shapes(tmp_path / "data", train=1, val=4, progress=False)
    out = tmp_path / "eval"
    code, said, _ = moonseg("--dataset", tmp_path / "data", "--split", "val", "--out", out)
    scenes = open_split(tmp_path / "data", "val")
    phrases = [example.phrase for number in range(4) for example in scenes[number].examples]
    assert code == 0 and [line["phrase"] for line in samples(out)] == phrases
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["refined"]["miou"] == metrics["refined"]["p90"] == metrics["refined"]["biou_2px"] == 1
    assert 0.3 < metrics["coarse"]["miou"] < 0.9 and metrics["coarse"]["n"] == len(phrases)
    assert metrics["config"]["data"]["name"] == "shapes" and metrics["config"]["thorough"] is False
    assert "sampled_miou" not in metrics and "flood_fill" not in metrics["baselines"]
    table = (out / "table.md").read_text()
    assert table in said and "| refined " in table and "convex hull" in table
    assert f"{out}/metrics.json" in said and f"{out}/samples.jsonl" in said


def test_embedded_scenes_have_the_baselines_of_the_evaluation_in_memory(moonseg, tmp_path):
    assert moonseg("--scenes", 5, "--out", tmp_path)[0] == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    told, whole_image = [], []
    for scene in embedded_scenes(5):
        truths = {true_mask(example).tobytes(): true_mask(example) for example in scene.examples}
        for example in scene.examples[:2]:
            truth = true_mask(example)
            others = tuple(mask for mask in truths.values() if not np.array_equal(mask, truth))
            told.append(
                BaselineSample(
                    image=example.image, ground_truth=truth, others=others, coarse=diamond(example, truth).mask()
                )
            )
            whole_image.append(truth.mean())
    expected = measure_baselines(told)
    for name in ("other_object", "any_object", "filled_box", "coarse", "flood_fill", "flood_fill_gain"):
        assert metrics["baselines"][name] == pytest.approx(getattr(expected, name), abs=1e-12), name
    assert metrics["baselines"]["n"] == len(told) == metrics["coarse"]["n"] == 10
    assert metrics["sampled_miou"] == pytest.approx(np.mean(whole_image), abs=1e-12)


@pytest.mark.skipif(REAL_DATA is None, reason="MOONSEG_REAL_DATA names no folder of real data")
def test_photos_are_judged_at_their_own_size(moonseg, tmp_path):
    coco = Path(REAL_DATA) / "coco"
    build_coco(
        tmp_path / "data", images=coco / "images", annotations=coco / "instances.json", limit=12, progress=False
    )  # fmt: skip
    assert moonseg("--dataset", tmp_path / "data", "--split", "train", "--out", tmp_path / "eval")[0] == 0
    lines = samples(tmp_path / "eval")
    assert len({tuple(line["rle"]["size"]) for line in lines}) > 3, "photos differ in size"
    assert [line["iou"] for line in lines] == [1.0] * len(lines)
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    boxes = [coco_mask.toBbox(line["rle"]) for line in lines]
    areas = [coco_mask.area(line["rle"]) / (width * height) for line, (_, _, width, height) in zip(lines, boxes)]
    assert metrics["baselines"]["filled_box"] == pytest.approx(np.mean(areas), abs=1e-12)
    found = metrics["baselines"]
    assert found["filled_box"] < found["hull"] < 1 and 0.3 < found["ellipse"] < 0.8


def test_coarse_figures_need_no_refiner(moonseg, tmp_path):
    words = ("--scenes", 2, "--checkpoint", shipped("sft"), "--out", tmp_path)
    code, _, error = moonseg(*words)
    assert code == 2 and "holds no refiner weights" in error and "--stage coarse" in error
    assert moonseg(*words, "--stage", "coarse")[0] == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "refined" not in metrics and metrics["statuses"] == {NOT_ASKED: 4} and metrics["unrefined"] == 0
    assert all(line["iou"] == line["coarse_iou"] for line in samples(tmp_path))


def test_refined_figures_alone(moonseg, tmp_path):
    assert moonseg("--scenes", 2, "--stage", "refined", "--out", tmp_path)[0] == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "coarse" not in metrics and metrics["refined"]["miou"] == 1
    assert all(line["coarse_iou"] < 1 for line in samples(tmp_path))


def test_an_outline_is_written_in_units_of_its_box(moonseg, tmp_path):
    moonseg("--scenes", 1, "--out", tmp_path)
    first, _ = samples(tmp_path)
    assert first["path"] == "M 0.5 0 L 1 0.5 L 0.5 1 L 0 0.5 Z"
    assert first["box"] == true_box(true_mask(embedded_scenes(1)[0].examples[0])).astype(np.float32).tolist()


def test_embedded_scenes_are_those_of_the_readme():
    found = open_held_out(EvalSettings())
    assert (found.count, found.phrases, found.embedded) == (500, 2, True)
    for seed in (0, 3):
        read = open_held_out(EvalSettings(limit=2, seed=seed)).read(1)
        expected = embedded_scenes(2, seed)[1]
        assert np.array_equal(read.examples[0].image, expected.examples[0].image)
        assert [one.phrase for one in read.examples] == [one.phrase for one in expected.examples]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scenes", "0"), "--limit must be at least 1, got 0"),
        (("--batch", "0"), "--batch must be at least 1, got 0"),
        (("--iterations", "0"), "--iterations must be at least 1, got 0; --stage coarse leaves refinement out"),
        (("--seed", "-1"), "--seed must not be negative, got -1"),
        (("--split", "testA"), "--split testA is of a data set, and none is named"),
        (("--stage", "coarse", "--refiner", "here"), "--refiner here and --stage coarse exclude each other"),
        (("--distributed", "here"), "say auto on TPU"),
    ],
)
def test_options_are_checked_before_the_work(moonseg, words, said):
    code, _, error = moonseg(*words)
    assert code == 2 and said in error and error.count("\n") == 1


def test_the_folder_of_another_run_is_left_alone(moonseg, tmp_path):
    (tmp_path / "config.json").write_text('{"kind": "rl", "config": {}}')
    for words in ((), ("--fresh",)):
        code, _, error = moonseg("--scenes", 1, "--out", tmp_path, *words)
        assert code == 2 and "holds a run of kind 'rl'" in error
    assert (tmp_path / "config.json").is_file() and not (tmp_path / "samples.jsonl").exists()
