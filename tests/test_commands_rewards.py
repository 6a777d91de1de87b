"""`moonseg rewards compare`: from the words of a command to its files, its table and its errors."""

import dataclasses
import json

import pytest
from stored_samples import stored

from moonseg_jax import cli
from moonseg_jax.rewards import RewardSpec, WeightedTerm

FIRST = ("rewards", "compare")


@pytest.fixture
def moonseg(capsys, tmp_path, monkeypatch):
    """Runs a command in a folder of its own: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words):
        try:
            code = cli.main([*FIRST, *words])
        except SystemExit as stop:
            code = stop.code
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


@pytest.fixture
def run_folder(tmp_path):
    """The folder `run` of a run that kept rollouts and was paid with a reward of its own."""
    folder = tmp_path / "run"
    folder.mkdir()
    stored().save(folder / "rollouts.npz")
    own = RewardSpec(terms=(WeightedTerm(term="iou", weight=2.0),))
    record = {"kind": "rl", "config": {"reward": dataclasses.asdict(own)}}
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_compared_in_its_folder_with_its_own_reward(moonseg, run_folder):
    code, out, _ = moonseg("run", "--shapes", "iou_dear_tokens")
    assert code == 0
    data = json.loads((run_folder / "compare.json").read_text())
    assert list(data["shapes"]) == ["iou", "iou_dear_tokens", "this run"]
    beside = {pair["second"]: pair["rank_correlation"] for pair in data["pairs"] if pair["first"] == "iou"}
    assert beside == {"iou_dear_tokens": pytest.approx(-1.0), "this run": pytest.approx(1.0)}
    rows = [line.split() for line in out.splitlines()]
    assert ["iou_dear_tokens", "-1.000", "100.0%"] in [row[:3] for row in rows]
    assert "iou_dear_tokens prefers this" in (run_folder / "compare.html").read_text(encoding="utf-8")
    assert "run/compare.json" in out and "run/compare.html" in out


def test_a_file_is_compared_in_the_folder_that_is_named(moonseg, run_folder, tmp_path):
    code, *_ = moonseg("run/rollouts.npz", "--shapes", "box_until_good", "--out", "a/b", "--step", "3")
    assert code == 0 and not (run_folder / "compare.json").exists()
    data = json.loads((tmp_path / "a" / "b" / "compare.json").read_text())
    assert list(data["shapes"]) == ["iou", "box_until_good"] and data["schedules_at"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gone",), "no file or folder gone"),
        (("run/config.json",), "run/config.json is not a file of rollouts"),
        (("run", "--shapes", "topolgy"), "no shape 'topolgy'; did you mean 'topology'?"),
        (("run", "--step", "-1"), "--step must not be negative, got -1"),
        (("run", "--shapes", "iou", "--out", "run/config.json"), "a file is in the way"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(moonseg, run_folder, words, said):
    code, _, error = moonseg(*words)
    assert code == 2 and said in error and error.startswith("moonseg: error: ") and error.count("\n") == 1
