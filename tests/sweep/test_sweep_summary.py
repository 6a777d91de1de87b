"""From the results of trials to tables: what is compared, with which numbers, and what is refused."""

import json
import math

import pytest

from moonseg_jax.errors import UserError
from moonseg_jax.sweep.folder import open_sweep, trial_folder, write_shared
from moonseg_jax.sweep.page import write_summary
from moonseg_jax.sweep.summary import summarise

JUDGEMENT = {
    "kind": "grid", "baseline": "iou", "judged_by": "miou", "equal": "steps", "time_tolerance": 0.1,
    "eval_phrases": 2,
}  # fmt: skip
BUDGET = {"steps": 10, "images_per_batch": 2}
START = {"miou": 0.5, "ciou": 0.5, "biou_2px": 0.3, "tokens": 20.0, "sampled_miou": 0.4, "n": 6.0}
MIOU = {"iou": (0.60, 0.62, 0.61), "best": (0.63, 0.66, 0.65), "<i>": (0.50, 0.51, 0.50)}


def write_result(out, arm, seed, miou=0.6, **changes):
    """A finished trial, as its process leaves it."""
    result = {
        "arm": arm, "seed": seed, "stage": "rl", "figures": {**START, "miou": miou}, "start": START, "budget": BUDGET,
        "data": "d0", "start_weights": "w0", "judged": {"eval_phrases": 2}, "train_seconds": 60.0,
        "wall_seconds": 90.0, "skipped_steps": 0, "device": "1 x cpu", "version": "0", **changes,
    }  # fmt: skip
    folder = trial_folder(out, f"{arm}-seed{seed}")
    write_shared(folder.path / "trial.json", {"arm": arm, "seed": seed})
    write_shared(folder.result, result)


@pytest.fixture
def out(tmp_path):
    """A sweep of three arms and three seeds, all finished."""
    open_sweep(tmp_path, JUDGEMENT)
    for arm, values in MIOU.items():
        for seed, miou in enumerate(values):
            write_result(tmp_path, arm, seed, miou)
    return tmp_path


def test_differences_are_paired_by_seed(out):
    summary = summarise(out)
    assert list(summary.arms) == ["best", "iou", "<i>"]
    assert summary.arms["iou"].figures["miou"].mean == pytest.approx(0.61)
    assert summary.arms["iou"].figures["miou"].standard_error == pytest.approx(0.01 / math.sqrt(3))
    test = summary.against_baseline["miou"]["best"]
    # Differences .03, .04, .04: mean .11 / 3, standard deviation .01 / √3, error .01 / 3, t = 11, 2 degrees.
    assert test.mean == pytest.approx(0.11 / 3) and test.standard_error == pytest.approx(0.01 / 3)
    assert test.t_p == pytest.approx(1 - 11 / math.sqrt(2 + 11**2))
    assert test.t_p_holm == pytest.approx(test.t_p)  # The other arm's t is -33: its p comes first and is doubled.
    assert "iou" not in summary.against_baseline["miou"]
    assert summary.against_start["miou"]["iou"].mean == pytest.approx(0.11)


def test_pairs_are_of_seeds_that_both_arms_have(out):
    write_result(out, "best", 7, 0.99)
    summary = summarise(out)
    assert summary.against_baseline["miou"]["best"].n == 3 and summary.arms["best"].seeds == (0, 1, 2, 7)


def test_another_baseline_may_be_named(out):
    assert summarise(out, "best").against_baseline["miou"]["iou"].mean == pytest.approx(-0.11 / 3)
    with pytest.raises(UserError, match=r"no finished trial of the baseline 'gone'.*<i>, best, iou"):
        summarise(out, "gone")


def test_trials_without_a_result_are_listed_with_their_reason(out):
    for seed, reason in ((3, ""), (4, "Traceback\n\nUserError: no <room> left\n")):
        folder = trial_folder(out, f"best-seed{seed}")
        write_shared(folder.path / "trial.json", {})
        if reason:
            folder.error.write_text(reason)
    summary = summarise(out)
    assert [(one.name, one.status, one.reason) for one in summary.unfinished] == [
        ("best-seed3", "waiting", ""), ("best-seed4", "failed", "UserError: no <room> left"),
    ]  # fmt: skip
    _, page = write_summary(summary, out)
    assert "2 trials without a result" in page.read_text() and "no &lt;room&gt; left" in page.read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": {**BUDGET, "steps": 20}}, "different budgets cannot be compared: iou-seed0 has steps 10"),
        ({"data": "d1"}, "different data cannot be compared: iou-seed0 has d0, best-seed1 d1"),
        ({"start_weights": "w1"}, "different weights to start from"),
        ({"judged": {"eval_phrases": 3}}, "different held-out phrases"),
    ],
)
def test_trials_that_had_something_else_are_refused(out, changes, said):
    write_result(out, "best", 1, **changes)
    with pytest.raises(UserError, match=said):
        summarise(out)


def test_equal_seconds_lets_steps_differ_between_arms_but_not_time(out):
    (out / "sweep.json").unlink()
    open_sweep(out, {**JUDGEMENT, "equal": "seconds"})
    longer = {"budget": {**BUDGET, "steps": 40}}
    for seed in range(3):
        write_result(out, "best", seed, train_seconds=63.0, **longer)
    assert summarise(out).arms["best"].budget["steps"] == 40
    for seed in range(3):
        write_result(out, "best", seed, train_seconds=80.0, **longer)
    with pytest.raises(UserError, match=r"best trained for 80.0 s .* iou for 60.0 s.* with 30 steps instead of 40"):
        summarise(out)
    assert summarise(out, time_tolerance=0.5).arms["best"].train_seconds == 80.0
    write_result(out, "best", 2, train_seconds=80.0)
    with pytest.raises(UserError, match="different budgets cannot be compared: best-seed0 has steps 40"):
        summarise(out, time_tolerance=0.5)


def test_the_files_say_what_was_found(out):
    data, page = write_summary(summarise(out), out)
    found = json.loads(data.read_text())
    assert found["against_baseline"]["miou"]["best"]["mean"] == pytest.approx(0.11 / 3)
    assert found["arms"]["best"]["seeds"] == [0, 1, 2] and "Holm" in found["correction"]
    text = page.read_text()
    assert "+0.0367 ± 0.0033" in text and "&lt;i&gt;" in text and "<i>" not in text
    assert text.count("<svg") == 10


def test_an_unknown_folder_and_a_broken_result_are_named(out, tmp_path):
    with pytest.raises(UserError, match="holds no sweep"):
        summarise(tmp_path / "gone")
    write_shared(trial_folder(out, "best-seed0").result, {"arm": "best"})
    with pytest.raises(UserError, match=r"result\.json is no result of a trial"):
        summarise(out)
