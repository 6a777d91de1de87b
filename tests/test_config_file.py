import dataclasses
import json
from pathlib import Path

import pytest

from moonseg_jax.config_file import config_text, load_config, nearest, setting_names, with_overrides
from moonseg_jax.errors import UserError
from moonseg_jax.rewards import RewardSpec, WeightedTerm
from moonseg_jax.rewards.shapes import shape

OWN = RewardSpec(
    terms=(
        WeightedTerm(term="iou"),
        WeightedTerm(term="boundary_iou", weight=((0, 0.0), (9, 1.0)), parameters={"share": 0.01}),
    )
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 4
    tie: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    learning_rate: float = 0.1
    average: float | None = None
    text: Inner = Inner()
    vision: Inner = Inner(width=8)


def changed(*words):
    return with_overrides(Outer(vision=Inner(width=16)), words, prog="test")


def test_overrides_change_what_they_name_and_keep_the_rest():
    config = changed("--learning-rate", "1e-3", "--text.tie", "--average=0.9")
    assert config == Outer(learning_rate=1e-3, average=0.9, text=Inner(tie=True), vision=Inner(width=16))
    assert changed("--learning_rate=-2", "--text.no-tie").learning_rate == -2


def test_no_overrides_keep_the_config():
    assert changed() == Outer(vision=Inner(width=16))


def test_names_are_dotted():
    names = ["learning_rate", "average", "text.width", "text.tie", "vision.width", "vision.tie"]
    assert list(setting_names(Outer())) == names


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("learning_rat", "did you mean --learning-rate?"),
        ("text.widht", "did you mean --text.width?"),
        ("widht", "did you mean --text.width or --vision.width?"),
        ("zzz", "--help lists them"),
    ],
)
def test_the_nearest_names(name, remedy):
    assert nearest(name, list(setting_names(Outer()))) == remedy


def test_a_setting_that_does_not_exist_is_named_as_typed():
    with pytest.raises(UserError, match=r"no setting --lerning-rate in Outer; did you mean --learning-rate\?"):
        changed("--lerning-rate=3")


def test_a_value_that_does_not_fit_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        changed("--text.width", "wide")
    assert stop.value.code == 2 and "--text.width" in capsys.readouterr().err


def rl(*words, **changes):
    """The shipped RL config with settings changed in the file and on the command line."""
    config = dataclasses.replace(load_config(Path("experiments/shapes_tiny.py"), "rl"), **changes)
    return with_overrides(config, words, prog="test")


def test_a_reward_is_named_on_the_command_line():
    assert rl().reward == "iou" and rl().reward_spec == shape("iou")
    assert rl("--reward", "boundary").reward_spec == shape("boundary")
    assert "reward" in list(setting_names(rl(reward=OWN)))


def test_a_reward_of_ones_own_comes_from_the_file_and_gives_way_to_a_name():
    assert rl("--steps", "3", reward=OWN).reward_spec == OWN
    assert rl("--reward=topology", reward=OWN).reward_spec == shape("topology")


def test_a_reward_survives_the_runs_config_file():
    written = [json.loads(config_text(rl(reward=one)))["reward"] for one in ("boundary", OWN)]
    assert written[0] == "boundary" and RewardSpec.from_data(written[1]) == OWN


def test_an_unknown_reward_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        rl("--reward", "boundry")
    assert stop.value.code == 2 and "did you mean 'boundary'?" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="no shape 'topolgy'; did you mean 'topology'"):
        rl(reward="topolgy")


def test_fewer_than_no_rollouts_cannot_be_kept():
    with pytest.raises(UserError, match="keep_rollouts is -1: it must not be negative"):
        rl(keep_rollouts=-1)
