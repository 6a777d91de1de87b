"""The two rounds of the study of reward shapes that come with the package, and their shapes on stored rollouts."""

import json
from pathlib import Path

import pytest
from stored_samples import stored

from moonseg_jax import cli
from moonseg_jax.rewards.shapes import SHAPES
from moonseg_jax.sweep.sweep_file import load_sweep, reward_shapes_of
from moonseg_jax.train_config import SftConfig

SCREENING, CONFIRMATION = Path("experiments/reward_shapes.py"), Path("experiments/reward_confirmation.py")


def test_the_screening_has_ten_shapes_and_three_seeds_that_differ_in_nothing_else():
    sweep = load_sweep(SCREENING)
    assert len(sweep.arms) >= 10 and sweep.baseline == "iou" and sweep.equal == "steps"
    assert len(sweep.trials) == 3 * len(sweep.arms)
    first = sweep.trials[0].config
    for trial in sweep.trials:
        changed = {name for name, value in vars(trial.config).items() if value != vars(first)[name]}
        assert changed <= {"seed", "reward"} and trial.config.reward == trial.arm
    assert {trial.arm for trial in sweep.trials[: len(sweep.arms)]} == set(sweep.arms)


def test_the_confirmation_holds_rl_against_supervised_training_over_other_seeds():
    sweep, screened = load_sweep(CONFIRMATION), load_sweep(SCREENING)
    seeds = {trial.config.seed for trial in sweep.trials}
    assert len(seeds) >= 6 and seeds.isdisjoint(trial.config.seed for trial in screened.trials)
    control = [trial for trial in sweep.trials if trial.arm == sweep.baseline]
    assert all(isinstance(trial.config, SftConfig) for trial in control) and len(control) == len(seeds)
    assert "iou" in sweep.arms and sweep.equal == "seconds"
    assert len({(trial.config.start_from, trial.config.data) for trial in sweep.trials}) == 1


def test_start_and_data_can_be_changed_for_all_trials():
    sweep = load_sweep(CONFIRMATION, arms=["iou"], overrides=["--start-from", "a", "--data", "b"])
    assert sweep.arms == ("continued_supervised", "iou")
    assert {(trial.config.start_from, trial.config.data) for trial in sweep.trials} == {("a", "b")}


def test_the_shapes_of_a_sweep_are_those_of_its_arms():
    names = ("iou", "area_times_boundary")
    assert reward_shapes_of(load_sweep(CONFIRMATION)) == {name: SHAPES[name].spec for name in names}


def test_stored_rollouts_are_compared_under_the_shapes_of_a_sweep(tmp_path, capsys):
    stored().save(tmp_path / "rollouts.npz")
    (tmp_path / "mine.py").write_text(
        "from experiments.reward_shapes import *\n"
        "from moonseg_jax.rewards import RewardSpec, WeightedTerm\n"
        "def sweep():\n"
        "    own = RewardSpec(terms=(WeightedTerm(term='soft_dice', weight=2.0),))\n"
        "    rewards = {'plain': 'iou', 'twice_dice': own, 'iou_excess': 'iou_excess'}\n"
        "    return Sweep(baseline='plain', trials=tuple(\n"
        "        Trial(arm=arm, config=dataclasses.replace(rl(), reward=reward)) for arm, reward in rewards.items()))\n"
    )
    words = ["rewards", "compare", str(tmp_path / "rollouts.npz"), "--sweep", str(tmp_path / "mine.py")]
    assert cli.main(words) == 0, capsys.readouterr().err
    shapes = json.loads((tmp_path / "compare.json").read_text())["shapes"]
    assert list(shapes) == ["iou", "twice_dice", "iou_excess"]
    assert shapes["twice_dice"]["spec"]["terms"][0]["weight"] == pytest.approx(2.0)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["twice_dice", "1.000", "0.0%"] in [row[:3] for row in rows]


def test_an_arm_must_not_take_the_name_of_another_shape(tmp_path, capsys):
    stored().save(tmp_path / "rollouts.npz")
    (tmp_path / "mine.py").write_text(
        "from experiments.reward_shapes import *\n"
        "def sweep():\n"
        "    return Sweep(baseline='iou', trials=(Trial(\n"
        "        arm='iou', config=dataclasses.replace(rl(), reward='soft_dice')),))\n"
    )
    assert cli.main(["rewards", "compare", str(tmp_path / "rollouts.npz"), "--sweep", str(tmp_path / "mine.py")]) == 2
    assert "the sweep's arm 'iou' is not the shape of that name" in capsys.readouterr().err
