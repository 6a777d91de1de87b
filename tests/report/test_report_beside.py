"""Two runs on one page: what both have is together, what one has is said, and what cannot be compared is refused."""

import numpy as np
import pytest
from test_report_page import page, scene, tags

from moonseg_jax import cli
from moonseg_jax.errors import UserError
from moonseg_jax.gallery.scenes import GallerySection
from moonseg_jax.gallery.store import save_gallery
from moonseg_jax.report.beside import names_of, report_beside
from moonseg_jax.run_directory import RunDirectory


def make_run(path, kind, config, miou, rows=()):
    run = RunDirectory.create(path, kind, config)
    for step, figures in rows:
        run.append_metrics(step, figures)
    if miou is not None:
        run.write_summary({"rl": {"coarse": {"miou": miou, "n": 64}}, "wall_seconds": 60.0 * miou})
    return path


def keep_scenes(run, scenes):
    save_gallery((GallerySection(title="Worst", note="", items=tuple(scenes)),), run / "gallery")


@pytest.fixture
def runs(tmp_path):
    """Two RL runs with two scenes each, one of them in both."""
    first = make_run(
        tmp_path / "a", "rl", '{"seed": 1, "loss": {"scale": "none"}, "steps": 4}', 0.5,
        [(1, {"reward": 0.2, "sampled_iou": 0.3}), (2, {"reward": 0.4})],
    )  # fmt: skip
    second = make_run(
        tmp_path / "b", "rl", '{"seed": 1, "loss": {"scale": "group-std"}, "group": 8, "steps": 4}', 0.625,
        [(2, {"reward": 0.6, "entropy": 1.0})],
    )  # fmt: skip
    shared = scene(phrase="the star", iou_refined=0.5)
    keep_scenes(first, [scene(phrase="another"), shared])
    keep_scenes(second, [scene(phrase="the star", iou_refined=0.25), scene(image=shared.image + 1, phrase="the star")])
    return first, second


def test_curves_of_both_are_in_the_same_charts_under_the_names_of_the_runs(runs):
    (group,) = report_beside(*runs).curves
    lines = {curve.metric: curve.series for part in group.parts for curve in part.curves}
    reward = lines["reward"]
    assert [one.name for one in reward] == ["a", "b"]
    np.testing.assert_allclose(reward[0].values, [0.2, 0.4])
    np.testing.assert_array_equal(reward[1].steps, [2])
    assert [len(one.steps) for one in lines["entropy"]] == [0, 1]


def test_figures_stand_side_by_side_with_their_differences(runs):
    figures, costs = report_beside(*runs).summary
    assert figures.columns == ("", "a", "b", "difference")
    assert figures.rows[0] == ("Reinforcement learning, coarse: mIoU", "0.500", "0.625", "+0.125")
    assert figures.rows[1] == ("Reinforcement learning, coarse: phrases", "64", "64", "+0")
    assert dict((row[0], row[1:]) for row in costs.rows)["time"] == ("30 s", "38 s")


def test_a_run_without_summary_is_compared_by_the_last_evaluation_of_its_stages(runs, tmp_path):
    judged = [(2, {"eval_miou": 0.25}), (4, {"eval_miou": 0.5}), (4, {"reward": 0.1})]
    bare, inner = make_run(tmp_path / "bare", "rl", "{}", None, judged), tmp_path / "whole" / "rl"
    make_run(inner.parent, "quickstart", "{}", 0.75)
    make_run(inner, "rl", "{}", None, [(9, {"eval_miou": 0.375})])
    report = report_beside(bare, inner.parent)
    assert report.summary[0].title == "Held-out scenes, last evaluation"
    assert report.summary[0].rows == (("Reinforcement learning: mIoU", "0.500", "0.375", "-0.125"),)
    assert [group.title for group in report.curves] == ["Reinforcement learning"]


def test_scenes_that_only_one_run_kept_are_said_to_stand_alone(runs, tmp_path):
    bare = make_run(tmp_path / "bare", "rl", "{}", None, [(2, {"reward": 0.25})])
    note = "a kept 2 scenes and bare 0; none of them is in both."
    assert report_beside(runs[0], bare).paired.note == note and note in page(report_beside(runs[0], bare))


def test_only_settings_that_differ_are_listed(runs):
    assert report_beside(*runs).settings.rows == (("loss.scale", "none", "group-std"), ("group", "–", "8"))


def test_scenes_are_paired_by_photo_and_phrase(runs):
    paired = report_beside(*runs).paired
    assert paired.note == "a kept 2 scenes and b 2; 1 of them are in both."
    (pair,) = paired.pairs
    assert (pair.first.phrase, pair.difference) == ("the star", -0.25)
    html = page(report_beside(*runs))
    assert 'data-difference="-0.25"' in html and "IoU a <b>0.50</b> · b <b>0.25</b>" in html
    assert len([tag for tag, _ in tags(html) if tag == "article"]) == 1


def test_runs_of_different_stages_have_nothing_in_common(runs, tmp_path):
    other = make_run(tmp_path / "sft", "sft", "{}", None, [(1, {"box": 0.2})])
    with pytest.raises(UserError, match=r"a \(rl\) and .*sft \(sft\) have nothing in common.*name two runs"):
        report_beside(runs[0], other)


def test_a_run_cannot_stand_beside_itself_nor_beside_none(runs, tmp_path):
    with pytest.raises(UserError, match="cannot stand beside itself"):
        report_beside(runs[0], runs[0] / ".." / "a")
    with pytest.raises(UserError, match=f"{tmp_path / 'none'} holds no run"):
        report_beside(runs[0], tmp_path / "none")


def test_names_are_the_shortest_ends_that_tell_paths_apart(tmp_path):
    assert names_of(tmp_path / "x" / "rl", tmp_path / "y" / "rl") == ("x/rl", "y/rl")
    assert names_of(tmp_path / "x", tmp_path / "y") == ("x", "y")


def test_the_command_writes_where_it_is_told(runs, tmp_path, capsys):
    assert cli.main(["report", str(runs[0]), "--beside", str(runs[1]), "-o", str(tmp_path / "both.html")]) == 0
    assert "a beside b" in (tmp_path / "both.html").read_text(encoding="utf-8")
    assert cli.main(["report", str(runs[0]), "--beside", str(runs[1])]) == 0
    assert (runs[0] / "beside-b.html").is_file()
    capsys.readouterr()
    assert cli.main(["report", str(runs[0]), "-o", str(tmp_path / "none" / "x.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert cli.main(["report", str(runs[0]), "-o", str(tmp_path)]) == 2
    assert "is a folder: name a file in it" in capsys.readouterr().err
