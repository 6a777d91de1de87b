"""Which trials a process takes, which it leaves, and what becomes of those that fail; training itself is a stand-in."""

import pytest
from sweep_samples import FIGURES, SUPERVISED

from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import read_json
from moonseg_jax.sweep import run_trial
from moonseg_jax.sweep.folder import trial_folder
from moonseg_jax.sweep.grid import parse_part, part_of, run_grid
from moonseg_jax.sweep.sweep_file import load_sweep
from moonseg_jax.sweep.trial import Sweep

NAMES = ["plain-seed0", "cold-seed0", "plain-seed1", "cold-seed1"]


class Training:
    """Stands in for `run_sft`: notes what ran; fails where it is told to."""

    def __init__(self):
        self.ran: list[str] = []
        self.failing: set[str] = set()

    def __call__(self, config, run, resume):
        name = run.path.parent.name
        self.ran.append(name)
        if name in self.failing:
            raise RuntimeError("the machine\nis on fire")
        run.append_metrics(config.steps, {"seconds_per_step": 2.0, "skipped_steps": 0})


@pytest.fixture
def training(monkeypatch):
    stand_in = Training()
    monkeypatch.setattr(run_trial, "run_sft", stand_in)
    for name in ("whole_split_figures", "start_figures"):
        monkeypatch.setattr(run_trial, name, lambda *_: FIGURES)
    return stand_in


@pytest.fixture
def sweep(write_config):
    return load_sweep(write_config(SUPERVISED))


def test_parts_share_no_trial_and_are_all_of_them(sweep):
    for parts in (1, 2, 3, 7):
        taken = [trial.name for part in range(1, parts + 1) for trial in part_of(sweep.trials, part, parts)]
        assert sorted(taken) == sorted(NAMES)
    assert parse_part("3/10") == (3, 10)
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0", "-1/2"):
        with pytest.raises(UserError, match="must be i/N"):
            parse_part(wrong)


def test_two_parts_run_everything_once_and_the_whole_adds_nothing(sweep, training, tmp_path):
    run_grid(sweep, tmp_path / "out", part=(2, 2))
    assert training.ran == ["cold-seed0", "cold-seed1"]
    run_grid(sweep, tmp_path / "out", part=(1, 2))
    run_grid(sweep, tmp_path / "out")
    assert sorted(training.ran) == sorted(NAMES)
    result = read_json(tmp_path / "out/trials/cold-seed1/result.json", missing="")
    assert result["figures"] == FIGURES and result["train_seconds"] == 8.0 and result["budget"]["steps"] == 4


def test_a_failed_trial_is_marked_and_the_rest_goes_on(sweep, training, tmp_path):
    training.failing = {"cold-seed0"}
    with pytest.raises(UserError, match="1 of 4 trials failed, the first with RuntimeError: the machine is on fire"):
        run_grid(sweep, tmp_path / "out")
    assert training.ran == NAMES
    assert [trial_folder(tmp_path / "out", name).status for name in NAMES] == [
        "finished", "failed", "finished", "finished",
    ]  # fmt: skip
    assert "Traceback" in (tmp_path / "out/trials/cold-seed0/error.txt").read_text()

    with pytest.raises(UserError, match="cold-seed0 were begun and not finished; --resume goes on"):
        run_grid(sweep, tmp_path / "out")
    training.failing = set()
    run_grid(sweep, tmp_path / "out", resume=True)
    assert training.ran == [*NAMES, "cold-seed0"]
    assert not (tmp_path / "out/trials/cold-seed0/error.txt").exists()


def test_a_trial_in_other_hands_is_left_alone(sweep, training, tmp_path):
    run_grid(sweep, tmp_path / "out", part=(1, 4))
    with trial_folder(tmp_path / "out", "cold-seed0").held() as taken:
        assert taken
        run_grid(sweep, tmp_path / "out")
    assert training.ran == ["plain-seed0", "plain-seed1", "cold-seed1"]


def test_ctrl_c_stops_the_sweep_and_marks_nothing(sweep, tmp_path, training, monkeypatch):
    def interrupted(config, run, resume):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_trial, "run_sft", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_grid(sweep, tmp_path / "out")
    assert [trial_folder(tmp_path / "out", name).status for name in NAMES] == ["begun", *["waiting"] * 3]
    monkeypatch.setattr(run_trial, "run_sft", training)
    run_grid(sweep, tmp_path / "out", resume=True)
    assert training.ran == NAMES


def test_other_settings_and_another_sweep_are_refused_in_the_same_folder(write_config, sweep, training, tmp_path):
    run_grid(sweep, tmp_path / "out", part=(1, 4))
    changed = load_sweep(write_config(SUPERVISED), overrides=["--steps", "6"])
    with pytest.raises(UserError, match=r"plain-seed0 was run with other settings \(budget.steps, config.steps\)"):
        run_grid(changed, tmp_path / "out")
    other = Sweep(trials=sweep.trials, baseline="cold")
    with pytest.raises(UserError, match="holds a sweep with other baseline"):
        run_grid(other, tmp_path / "out")


def test_the_command_takes_settings_and_arms(moonseg, write_config, training, workplace):
    write_config(SUPERVISED)
    code, _, error = moonseg(
        "mine.py", "--out", "out", "--trial", "1/2", "--data", "data/", "--steps=3", "--arms", "plain"
    )
    assert code == 0, error
    assert training.ran == ["plain-seed0"]
    record = read_json(workplace / "out/trials/plain-seed1/trial.json", missing="")
    assert (record["config"]["data"], record["budget"]["steps"]) == ("data/", 3)
    assert not (workplace / "out/trials/cold-seed0").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "needs a config to run, or --summarise"),
        (("mine.py", "--summarise", "out"), "needs a config to run, or --summarise"),
        (("mine.py", "--trial", "5/4"), "--trial is '5/4'"),
        (("mine.py", "--arms", "gone"), "no arm gone in this sweep; there are plain, cold"),
        (("mine.py", "--stepps", "3"), "no setting --stepps in SftConfig; did you mean --steps?"),
        (("mine.py", "--trials", "3"), "--trials goes with --driver optuna only"),
        (("mine.py", "--baseline", "cold"), "--baseline goes with --summarise only"),
        (("mine.py", "--driver", "optuna"), "--driver optuna needs --trials"),
        (("--summarise", "gone"), "gone holds no sweep"),
        (("gone.py",), "no config file gone.py"),
        (("experiments/shapes_tiny.py",), "shapes_tiny.py has no sweep()"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(moonseg, write_config, words, said):
    write_config(SUPERVISED)
    code, _, error = moonseg(*words)
    assert code == 2 and said in error and error.startswith("moonseg: error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def sweep(): return 3", r"sweep\(\) must return a Sweep, but returned a int"),
        ("def sweep(): return Sweep(trials=(), baseline='a')", "there are no trials"),
        ("def sweep(): return Sweep(trials=(Trial(arm='a', config=sft()),) * 2, baseline='a')", "a-seed0 stands there"),
        ("def sweep(): return Sweep(trials=(Trial(arm='a', config=sft()),), baseline='b')", "baseline 'b' is no arm"),
        ("def sweep(): return Sweep(trials=(Trial(arm='../a', config=sft()),), baseline='b')", "arm '../a'"),
        ("def sweep(): return 1 / 0", r"line \d+: sweep\(\) failed: ZeroDivisionError"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_refused(write_config, text, said):
    with pytest.raises(UserError, match=said):
        load_sweep(write_config(text))
