import dataclasses

import pytest

from moonseg_jax.config_file import nearest, setting_names, with_overrides
from moonseg_jax.errors import UserError


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
