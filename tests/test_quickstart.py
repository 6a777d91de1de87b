"""The whole method in one command, at a fraction of its length: every stage runs and leaves what it promises."""

import dataclasses
import json

import numpy as np
import pytest

from moonseg_jax import quickstart as rooms
from moonseg_jax.cli import main
from moonseg_jax.gallery.keep import GALLERY
from moonseg_jax.gallery.store import load_gallery
from moonseg_jax.predict import Segmenter
from moonseg_jax.reward_compare.scoring import rewards_of
from moonseg_jax.rewards.shapes import shape
from moonseg_jax.rollout.group_record import SHOWN_GROUPS, load_groups
from moonseg_jax.rollout.stored import load_rollouts
from moonseg_jax.run_directory import read_metrics
from moonseg_jax.train import run_rl

pytestmark = pytest.mark.slow

SCENES = 8
METRICS = {"miou", "ciou", "p50", "biou_2px", "n"}


def run_rl_and_keep(config, run, resume):
    """The RL stage, which leaves the rollouts of its last step in its folder."""
    run_rl(dataclasses.replace(config, keep_rollouts=1, reward="iou_excess"), run, resume)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a quickstart of a few steps on a few scenes."""
    out = tmp_path_factory.mktemp("quickstart") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "TRAIN_SCENES", 32)
        patch.setattr(rooms, "HELD_OUT_SCENES", SCENES)
        patch.setattr(rooms, "HELD_OUT_UNSEEN_SCENES", 2)
        patch.setattr(rooms, "run_rl", run_rl_and_keep)
        assert main(["quickstart", "--out", str(out), "--seed", "3", "--minutes", "0.1"]) == 0
    return out


def test_the_summary_holds_every_figure_it_promises(finished):
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    assert summary["seed"] == 3 and summary["compiled_programs"] > 0
    assert 0 < summary["wall_seconds"] < 3600 and 0 < summary["peak_memory_gib"] < 24
    for figures in (summary["sft"]["coarse"], summary["rl"]["coarse"], summary["rl"]["refined"]):
        assert METRICS <= figures.keys()
        assert SCENES < figures["n"] <= 2 * SCENES
        assert all(0 <= figures[name] <= 1 for name in METRICS - {"n"})
    for stage in ("sft", "rl"):
        assert 0 <= summary[stage]["sampled_miou"] <= 1
    assert {"other_object", "filled_box", "flood_fill_gain"} <= summary["baselines"].keys()
    assert sum(summary["statuses"].values()) == summary["rl"]["refined"]["n"]


def test_the_report_is_one_page_that_needs_nothing_else(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page and "data:image/png;base64," in page
    assert 'src="http' not in page and 'href="http' not in page
    assert all(f'<section id="{name}">' in page for name in ("summary", "gallery", "groups", "curves", "time"))


def test_the_groups_of_the_report_are_samples_of_the_last_step(finished):
    kept, stored = load_groups(finished / "rl" / "groups.npz"), load_rollouts(finished / "rl")
    shown = len(kept.samples)
    assert shown == SHOWN_GROUPS < len(kept.payment.iou) == len(stored)
    for name in ("steps", "example_ids", "lengths", "truth", "box"):
        np.testing.assert_array_equal(getattr(kept.samples, name), getattr(stored, name)[:shown], err_msg=name)
    iou, rewards = rewards_of(stored, {"paid": shape("iou_excess")})
    np.testing.assert_allclose(kept.payment.iou, iou, atol=1e-5)
    np.testing.assert_allclose(kept.payment.reward, rewards["paid"], atol=1e-5)


def test_the_weights_it_leaves_segment_an_image(finished):
    segmenter = Segmenter.load(finished / "rl" / "last", finished / "refiner" / "last")
    image = np.full((96, 96, 3), 90, np.uint8)
    image[30:60, 20:50] = (200, 30, 30)
    assert segmenter.segment(image, "the red square").mask.shape == (96, 96)


def test_a_second_run_in_the_same_folder_is_refused_and_changes_nothing(finished, capsys):
    before = (finished / "summary.json").read_bytes()
    assert main(["quickstart", "--out", str(finished), "--seed", "4"]) == 2
    assert str(finished) in capsys.readouterr().err
    assert (finished / "summary.json").read_bytes() == before


def test_the_rollouts_an_rl_run_keeps_are_those_of_its_last_step(finished):
    stored = load_rollouts(finished / "rl")
    config = json.loads((finished / "rl" / "config.json").read_text(encoding="utf-8"))["config"]
    assert set(stored.steps) == {config["steps"] - 1}
    assert (len(stored), stored.group) == (config["images_per_batch"] * config["phrases_per_image"], config["group"])
    assert len(set(stored.example_ids)) == len(stored) and stored.reference_lengths.min() > 10


@pytest.mark.parametrize("stage", ["rl", "refiner"])
def test_the_scenes_a_stage_keeps_for_its_report_are_those_of_its_last_evaluation(finished, stage):
    judged = [row for row in read_metrics(finished / stage / "metrics.jsonl") if "eval_miou" in row][-1]
    items = [item for section in load_gallery(finished / stage / GALLERY) for item in section.items]
    assert len(items) == judged["eval_n"]
    assert np.mean([item.iou for item in items]) == pytest.approx(judged["eval_miou"], abs=1e-6)
    assert judged["eval_miou"] > 0.05
