import json

import numpy as np
import pytest

from moonseg_jax.errors import UserError
from moonseg_jax.gallery.scenes import GalleryItem, GallerySection
from moonseg_jax.gallery.store import load_gallery, save_gallery
from moonseg_jax.report.curves import curve_group
from moonseg_jax.report.run import report_of_run, write_run_report
from moonseg_jax.report.time_spent import time_spent
from moonseg_jax.run_directory import RunDirectory

FIGURES = {"miou": 0.7124, "ciou": 0.73, "p50": 0.81, "biou_2px": 0.46, "n": 512}


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path / "quickstart", "quickstart", '{"minutes": 10}')
    for stage in ("rl", "sft"):
        inner = RunDirectory.create(run.path / stage, stage, "{}")
        for step in range(4):
            inner.append_metrics(step, {"gradient_norm": 1.0, "loss": step / 4 if step != 2 else float("nan")})
    run.write_summary(
        {
            "sft": {"coarse": FIGURES, "sampled_miou": 0.61},
            "rl": {"coarse": FIGURES, "refined": {**FIGURES, "miou": 0.8125}, "sampled_miou": 0.66},
            "baselines": {"filled_box": 0.554, "flat_guess": 0.1},
            "wall_seconds": 652.3,
            "peak_memory_gib": 3.41,
            "seed": 4,
        }
    )
    return run.path


def test_a_run_becomes_tables_curves_and_facts(run):
    report = report_of_run(run)
    (summary,) = report.summary
    assert report.baselines is not None
    assert [row[0] for row in summary.rows] == [
        "Supervised, coarse",
        "Reinforcement learning, coarse",
        "Reinforcement learning, refined",
    ]
    assert summary.rows[0][1:] == ("0.712", "0.730", "0.810", "0.460", "512", "0.610")
    assert report.baselines.rows == (("the ground-truth box, filled", "0.554"), ("flat guess", "0.100"))
    assert dict(report.facts) == {"time": "10:52 min", "peak memory": "3.41 GiB", "seed": "4"}
    assert [group.title for group in report.curves] == ["Supervised", "Reinforcement learning"]


def test_curves_keep_gaps_and_go_by_people_s_names(run):
    other, optimisation = report_of_run(run).curves[0].parts[::-1]
    assert (optimisation.title, other.title) == ("Optimisation", "Other")
    (loss,), (gradient,) = other.curves, optimisation.curves
    assert (loss.title, gradient.title, gradient.metric) == ("loss", "gradient norm", "gradient_norm")
    np.testing.assert_allclose(loss.series[0].values, [0.0, 0.25, np.nan, 0.75])
    np.testing.assert_array_equal(loss.series[0].steps, [0, 1, 2, 3])


def test_charts_of_a_kind_stand_together_reward_terms_before_sizes():
    rows = [
        {"step": 1, "iou_large": 0.1, "term_length": 0.2, "reward": 0.3, "eval_p50": 0.4, "eval_miou": 0.5, "x": 1.0,
         "wall_seconds": 3.0, "seconds_learn": 0.5, "seconds_per_step": 1.0, "entropy": 0.2, "tokens": 9.0}
    ]  # fmt: skip
    group = curve_group("RL", {"run": rows})
    assert {part.title: [curve.metric for curve in part.curves] for part in group.parts} == {
        "Held-out scenes": ["eval_miou", "eval_p50"],
        "Reward and its terms": ["reward", "term_length", "iou_large"],
        "Samples": ["tokens"],
        "Optimisation": ["entropy"],
        "Time and exchange": ["seconds_per_step", "seconds_learn"],
        "Other": ["x"],
    }


def test_a_run_without_summary_says_how_its_held_out_figures_changed(tmp_path):
    run = RunDirectory.create(tmp_path / "run", "rl", "{}")
    run.append_metrics(0, {"eval_miou": 0.5, "eval_tokens": 30.0})
    run.append_metrics(5, {"loss": 1.0})
    run.append_metrics(9, {"eval_miou": 0.75, "eval_tokens": 28.0})
    (table,) = report_of_run(run.path).summary
    assert table.columns == ("", "step 0", "step 9", "change")
    assert table.rows == (("mIoU", "0.500", "0.750", "+0.250"), ("tokens per path", "30.000", "28.000", "-2.000"))


def test_time_goes_to_the_parts_of_a_rollout_and_what_is_left_to_the_rest():
    rows = [
        {"step": 2, "seconds_per_step": 10.0, "seconds_rollout": None, "seconds_decode": None, "seconds_learn": 1.0},
        {"step": 2, "eval_miou": 0.5},
        {"step": 5, "seconds_per_step": 4.0, "seconds_rollout": 2.5, "seconds_decode": 2.0, "seconds_encode": 0.5,
         "seconds_learn": 1.0},
    ]  # fmt: skip
    split = time_spent("RL", rows)
    assert split.parts == ("encode", "decode", "learn", "rest")
    np.testing.assert_array_equal(split.steps, [2, 5])
    np.testing.assert_allclose(split.seconds, [[0, 0, 2, 18], [1.5, 6, 3, 1.5]])
    assert "beside the learner" not in split.note
    assert time_spent("RL", [{"step": 1, "eval_miou": 0.5}]) is None


def test_time_of_samplers_beside_the_learner_is_said_to_overlap():
    split = time_spent("RL", [{"step": 4, "seconds_per_step": 2.0, "seconds_rollout": 1.5, "seconds_learn": 1.5}])
    np.testing.assert_allclose(split.seconds, [[6, 6, 0]])
    assert "Samplers work beside the learner" in split.note


def test_the_page_is_written_into_the_run(run):
    path = write_run_report(run)
    assert path == run / "report.html" and "0.812" in path.read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no run"):
        write_run_report(tmp_path)


@pytest.mark.parametrize("summary", [{"rl": 3}, {"sft": None}, {"baselines": [0.5]}])
def test_a_summary_of_another_form_is_named(tmp_path, summary):
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"summary\.json: '(rl|sft|baselines)' is not an object"):
        report_of_run(tmp_path)


def test_a_gallery_survives_the_disk(tmp_path):
    truth = np.zeros((6, 9), bool)
    truth[2:4, 3:7] = True
    item = GalleryItem(
        image=np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3),
        phrase='a "ring" & more',
        polygons=(np.array([[0.1, 0.2], [0.3, 0.4], [1 / 3, 0.6]]),),
        coarse=~truth,
        refined=None,
        truth=truth,
        iou_coarse=0.25,
        iou_refined=None,
        status="unrefined: why",
    )
    save_gallery((GallerySection(title="Worst", note="n", items=(item,)),), tmp_path)
    (section,) = load_gallery(tmp_path)
    (loaded,) = section.items
    for name in ("image", "coarse", "truth"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(item, name))
    np.testing.assert_allclose(loaded.polygons[0], item.polygons[0], atol=1e-5)
    for name in ("phrase", "refined", "iou_coarse", "iou_refined", "status"):
        assert getattr(loaded, name) == getattr(item, name)


def test_a_gallery_cannot_name_files_elsewhere(tmp_path):
    entry = {"name": "../secret", "phrase": "", "polygons": [], "refined": False}
    (tmp_path / "gallery.json").write_text(json.dumps([{"title": "", "note": "", "items": [entry]}]))
    with pytest.raises(UserError, match="not the name of a file in that folder"):
        load_gallery(tmp_path)
