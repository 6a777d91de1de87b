"""A whole evaluation of scenes of every kind with weights of micro size: what is judged, going on, sharing."""

import functools
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from eval_samples import NARROW, SIZES, UNKNOWN_WORD, figures, held_out, mixed_scenes, of_width, samples, write_weights
from pycocotools import mask as coco_mask

from moonseg_jax.batch import true_mask
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Decoder, crops_of, mask_metrics
from moonseg_jax.evaluation import run
from moonseg_jax.evaluation.sample_log import SampleLog
from moonseg_jax.evaluation.settings import EvalSettings
from moonseg_jax.metrics import MaskMetrics
from moonseg_jax.policy import load_policy
from moonseg_jax.refine import load_refiner, refine_predictions
from moonseg_jax.scoring.figures import figures as figures_of
from moonseg_jax.scoring.sample_score import score_sample
from moonseg_jax.status import REFINED, UNSAYABLE
from moonseg_jax.types import Scene

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _quick_compiling():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def scenes():
    """What every evaluation here judges; programs are compiled once for all of them."""
    scenes = mixed_scenes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Answerer", functools.cache(run.Answerer))
        patch.setattr(run, "open_held_out", lambda settings: held_out(scenes, settings.phrases))
        yield scenes


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder)
    return folder


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    """The folder of an evaluation that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "eval"
    run.evaluate(EvalSettings(checkpoint=weights, **SIZES), out)
    return out


def test_every_phrase_is_judged_once_and_in_order(whole, scenes):
    expected = [(number, k, one.phrase) for number, scene in enumerate(scenes) for k, one in enumerate(scene.examples)]
    found = samples(whole)
    assert [(line["scene"], line["position"], line["phrase"]) for line in found] == expected
    assert len({line["id"] for line in found}) == len(found) == figures(whole)["refined"]["n"]


def test_figures_are_those_of_the_masks_in_the_log(whole, scenes):
    again, metrics = [], MaskMetrics()
    for line in samples(whole):
        mask = coco_mask.decode(line["rle"]).astype(bool)
        truth = true_mask(scenes[line["scene"]].examples[line["position"]])
        again.append(score_sample(mask, truth, id=line["id"]))
        assert line["iou"] == metrics.add(mask, truth)
    found = figures(whole)["refined"]
    assert {name: found[name] for name in figures_of(again)} == figures_of(again)
    assert {name: found[name] for name in metrics.summary()} == pytest.approx(metrics.summary(), abs=1e-9)
    assert found["miou"] != figures(whole)["coarse"]["miou"], "both stages must differ"


def test_answers_are_those_of_the_evaluation_in_memory(whole, weights):
    """Decoding, refinement and metrics as training uses them, on scenes of several crops."""
    chosen = of_width(96)
    policy, params = load_policy(weights)
    predictions = Decoder(policy, images=2, phrases=4, crops=crops_of(chosen, policy))(params, chosen)
    refined = refine_predictions(load_refiner(weights, policy, params, batch=3, iterations=2), predictions)
    lines = [line for line in samples(whole) if line["scene"] in (1, 5) and line["position"] < 4]
    assert [line["path"] for line in lines] == [one.path() for one in predictions]
    assert [line["status"] for line in lines] == [one.status for one in refined]
    for masks, ious in (([one.mask() for one in predictions], "coarse_iou"), ([one.mask for one in refined], "iou")):
        expected = mask_metrics(predictions, masks).summary()["miou"]
        assert np.mean([line[ious] for line in lines]) == pytest.approx(expected, abs=1e-9)


def test_a_phrase_that_cannot_be_said_counts_as_an_empty_mask(whole):
    (line,) = [line for line in samples(whole) if line["phrase"] == UNKNOWN_WORD]
    assert (line["iou"], line["status"], line["path"]) == (0.0, UNSAYABLE, "")
    found = figures(whole)
    assert (found["statuses"][UNSAYABLE], found["invalid"]) == (1, 1)
    assert found["unrefined"] == sum(one["status"] != REFINED for one in samples(whole))


def test_a_phrase_without_target_is_judged_by_its_emptiness(whole, scenes):
    (line,) = [line for line in samples(whole) if scenes[line["scene"]].examples[line["position"]].target is None]
    found = figures(whole)
    assert found["refined"]["n_acc"] == line["iou"] == float(not coco_mask.area(line["rle"]))
    assert line["trivial"] is None and found["baselines"]["n"] == found["refined"]["n"] - 1


def test_classes_are_phrases(whole):
    by_phrase = {}
    for line in samples(whole):
        by_phrase.setdefault(line["phrase"], []).append(line["iou"])
    found = figures(whole)["refined"]
    expected = np.mean([np.mean(ious) for ious in by_phrase.values()])
    assert (found["class_miou"], found["classes"]) == (pytest.approx(expected, abs=1e-12), len(by_phrase))


def test_after_a_kill_the_rest_is_judged_and_nothing_differs(whole, weights, tmp_path, monkeypatch):
    append, blocks = SampleLog.append, itertools.count()

    def killed(log, records, seconds):
        append(log, records, seconds)
        if next(blocks) == 1:
            log._stream.write('{"id": "torn')
            log._stream.flush()
            raise RuntimeError("killed")

    settings = EvalSettings(checkpoint=weights, **SIZES)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(SampleLog, "append", killed)
        run.evaluate(settings, tmp_path)
    left = (tmp_path / "samples.jsonl").read_text()
    assert left.endswith("torn") and 0 < left.count("\n") < len(samples(whole))
    run.evaluate(settings, tmp_path)
    assert (tmp_path / "samples.jsonl").read_text().startswith(left.removesuffix('{"id": "torn'))
    assert samples(tmp_path) == samples(whole) and figures(tmp_path) == figures(whole)


def test_two_processes_judge_what_one_does(whole, weights, tmp_path):
    plan = run.make_plan(EvalSettings(checkpoint=weights, **SIZES))
    for share in (0, 1):
        assert run.judge_share(plan, tmp_path, share=share, shares=2)[0] == 2
    assert {line["scene"] % 2 for line in samples(tmp_path, "samples-1.jsonl")} == {1}
    run.add_up(plan, tmp_path, plan.config(2), iterations=2, seconds=0.0)
    assert samples(tmp_path) == samples(whole) and figures(tmp_path) == figures(whole)


def test_eight_devices_answer_as_one(whole, weights, tmp_path):
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), str(here.parent.parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, str(here / "eval_samples.py"), str(weights), str(tmp_path / "eval")],
        env={
            **os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        },
        check=True, timeout=600,
    )  # fmt: skip
    found = samples(tmp_path / "eval")
    same = {line["id"]: line for line in samples(whole)}
    assert len(found) == sum(len(scene.examples) for scene in of_width(NARROW))
    assert found == [same[line["id"]] | {"scene": line["scene"]} for line in found]


def test_another_evaluation_in_the_folder_is_refused_unless_fresh(weights, tmp_path):
    run.evaluate(EvalSettings(checkpoint=weights, **SIZES), tmp_path)
    other = EvalSettings(checkpoint=weights, seed=1, **SIZES)
    with pytest.raises(UserError, match=r"seed \(was 0, now 1\).*--out, or start over with --fresh"):
        run.evaluate(other, tmp_path)
    before = figures(tmp_path)
    run.evaluate(other, tmp_path, fresh=True)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == 1
    assert figures(tmp_path)["refined"].pop("intervals") != before["refined"].pop("intervals")


def test_words_that_are_all_foreign_are_refused_and_leave_the_folder_free(weights, tmp_path, scenes, monkeypatch):
    foreign = Scene(examples=scenes[3].examples[1:2])
    monkeypatch.setattr(run, "open_held_out", lambda settings: held_out([foreign]))
    with pytest.raises(UserError, match=r"can say none of the first 1 phrases.*starfish"):
        run.evaluate(EvalSettings(checkpoint=weights, **SIZES), tmp_path)
    assert list(tmp_path.iterdir()) == []
