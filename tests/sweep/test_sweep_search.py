"""A search over what `search(trial)` suggests; training itself is a stand-in."""

import sys

import pytest
from sweep_samples import FIGURES

from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import read_json
from moonseg_jax.sweep import run_trial
from moonseg_jax.sweep.search import Search

SEARCH = """
def search(trial):
    return sft(heat_weight=trial.suggest_float("heat", 0.0, 1.0))
"""


class Training:
    """Stands in for training: figures follow the suggested value, best at .3; notes what ran."""

    def __init__(self):
        self.values: list[float] = []
        self.raises: dict[int, BaseException] = {}

    def __call__(self, config, run, resume):
        self.values.append(config.heat_weight)
        if len(self.values) in self.raises:
            raise self.raises[len(self.values)]
        run.append_metrics(config.steps, {"seconds_per_step": 2.0, "skipped_steps": 0})

    def figures(self, weights, config, phrases):
        return {**FIGURES, "miou": 1 - abs(config.heat_weight - 0.3)}


@pytest.fixture
def training(monkeypatch):
    stand_in = Training()
    monkeypatch.setattr(run_trial, "run_sft", stand_in)
    monkeypatch.setattr(run_trial, "whole_split_figures", stand_in.figures)
    monkeypatch.setattr(run_trial, "start_figures", lambda *_: FIGURES)
    return stand_in


@pytest.fixture
def config(write_config):
    pytest.importorskip("optuna")
    return write_config(SEARCH)


def study(out):
    return read_json(out / "study.json", missing="no study.json")["trials"]


def test_a_search_learns_from_its_trials_and_is_gone_on_with(config, training, tmp_path):
    out = tmp_path / "out"
    Search(config, out, "miou").run(2)
    Search(config, out, "miou").run(12)
    Search(config, out, "miou").run(12)
    trials = study(out)
    assert [one["number"] for one in trials] == list(range(12)) and len(training.values) == 12
    assert [one["params"]["heat"] for one in trials] == training.values
    assert [one["miou"] for one in trials] == pytest.approx([1 - abs(value - 0.3) for value in training.values])
    again = tmp_path / "again"
    Search(config, again, "miou").run(12)
    assert [one["params"] for one in study(again)] == [one["params"] for one in trials]


def test_a_failed_trial_is_told_to_the_study_and_the_rest_goes_on(config, training, tmp_path):
    training.raises = {2: RuntimeError("on fire")}
    Search(config, tmp_path / "out", "miou").run(3)
    found = [(one["state"], one["reason"]) for one in study(tmp_path / "out")]
    assert found == [("complete", ""), ("fail", "RuntimeError: on fire"), ("complete", "")]
    training.raises = dict.fromkeys(range(4, 6), RuntimeError("on fire"))
    with pytest.raises(UserError, match="no trial of the search has succeeded"):
        Search(config, tmp_path / "all", "miou").run(2)


def test_a_trial_whose_process_is_gone_is_gone_on_with(config, training, tmp_path):
    training.raises = {2: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        Search(config, tmp_path / "out", "miou").run(3)
    with pytest.raises(UserError, match="search0001 was begun and its process is gone; --resume"):
        Search(config, tmp_path / "out", "miou").run(3)
    Search(config, tmp_path / "out", "miou").run(3, resume=True)
    assert [one["state"] for one in study(tmp_path / "out")] == ["complete"] * 3
    assert training.values[1] == training.values[2] and len(training.values) == 4


def test_a_trial_in_other_hands_is_not_taken_twice(config, training, tmp_path):
    outer = Search(config, tmp_path / "out", "miou")

    def other_process(trial_config, run, resume):
        training.raises = {}
        if not training.values:
            training.values.append(trial_config.heat_weight)
            Search(config, tmp_path / "out", "miou").run(3)
        else:
            training.values.append(trial_config.heat_weight)
        run.append_metrics(trial_config.steps, {"seconds_per_step": 2.0, "skipped_steps": 0})

    run_trial.run_sft = other_process
    outer.run(3)
    assert len(training.values) == 3 and len(set(training.values)) == 3


def test_the_command_searches_and_a_search_is_not_summarised(moonseg, config, training, workplace):
    words = ("mine.py", "--driver", "optuna", "--trials", "2", "--out", "out", "--steps", "3")
    code, _, error = moonseg(*words)
    assert code == 0 and "best: trial" in error
    assert read_json(workplace / "out/trials/search0001/trial.json", missing="")["budget"]["steps"] == 3
    code, _, error = moonseg("--summarise", "out")
    assert code == 2 and "out holds a search" in error
    code, _, error = moonseg("mine.py", "--driver", "optuna", "--trials", "2", "--out", "out", "--figure", "tokens")
    assert code == 2 and "holds a sweep with other judged_by" in error


def test_a_search_without_optuna_says_how_to_get_it(write_config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'moonseg-jax\[sweep\]'"):
        Search(write_config(SEARCH), tmp_path / "out", "miou")


def test_a_config_without_search_is_refused(write_config, tmp_path):
    pytest.importorskip("optuna")
    with pytest.raises(UserError, match=r"mine.py has no search\(trial\)"):
        Search(write_config(""), tmp_path / "out", "miou").run(1)
