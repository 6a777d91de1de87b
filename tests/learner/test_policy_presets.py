"""Settings of the policy loss: the default, what is refused and how the message helps, changes from outside."""

import dataclasses

import pytest

from moonseg_jax.config import ConfigError
from moonseg_jax.config_file import with_overrides
from moonseg_jax.errors import UserError
from moonseg_jax.learner.policy_presets import PRESETS, PolicyLossConfig, preset


def test_the_default_is_leave_one_out_without_standard_deviation():
    config = PolicyLossConfig()
    assert config == PRESETS["rloo"]
    assert (config.baseline, config.scale, config.aggregation, config.fixed_length) == (
        "leave-one-out", "none", "fixed-length", 1,
    )  # fmt: skip


def test_presets_differ_where_their_papers_do():
    assert list(PRESETS) == ["rloo", "reinforce", "grpo", "dapo", "dr_grpo", "gspo"]
    assert len(set(PRESETS.values())) == len(PRESETS)
    assert [name for name, config in PRESETS.items() if config.needs_reference] == ["grpo"]
    assert {name: (config.clip_low, config.clip_high) for name, config in PRESETS.items()} == {
        "rloo": (0.2, 0.2), "reinforce": (None, None), "grpo": (0.2, 0.2), "dapo": (0.2, 0.28), "dr_grpo": (0.2, 0.2),
        "gspo": (3e-4, 4e-4),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline": "loo"}, "baseline is 'loo': .*leave-one-out, group-mean, none"),
        ({"scale": "group_std"}, "scale is 'group_std': did you mean group-std?"),
        ({"ratio": "tokens"}, "ratio is 'tokens': did you mean token?"),
        ({"aggregation": "sequence"}, "aggregation is 'sequence': did you mean sequence-mean?"),
        ({"kl_estimator": "k2"}, "kl_estimator is 'k2': .*k1, k3"),
        ({"clip_low": 0.0}, "clip_low is 0.0: .*None for no bound"),
        ({"clip_low": 1.5}, "clip_low is 1.5: .*at most 1"),
        ({"clip_high": -0.1}, "clip_high is -0.1: give a number above 0"),
        ({"clip_high": float("nan")}, "clip_high is nan"),
        ({"ratio": "none"}, "ratio is none.*set clip_low and clip_high to None"),
        ({"correction_cap": 0.5}, "correction_cap is 0.5: .*at least 1"),
        ({"kl_weight": -0.1}, "kl_weight is -0.1: .*0 switches it off"),
        ({"entropy_weight": float("inf")}, "entropy_weight is inf: give a finite number"),
        ({"overlong_weight": float("nan")}, "overlong_weight is nan"),
        ({"fixed_length": 0}, "fixed_length is 0: give at least 1 token"),
        ({"overlong_buffer": -3}, "overlong_buffer is -3: give at least 1 token"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name_and_with_a_remedy(settings, message):
    with pytest.raises(ConfigError, match=message):
        PolicyLossConfig(**settings)


def test_limits_that_still_work_are_accepted():
    PolicyLossConfig(clip_low=1.0, correction_cap=1.0, fixed_length=None, overlong_buffer=1)
    PolicyLossConfig(clip_low=None, clip_high=0.5)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"preset is 'drgrpo': did you mean dr_grpo.*rloo, reinforce, grpo, dapo"):
        preset("drgrpo")
    assert preset("gspo") is PRESETS["gspo"]


def test_a_preset_is_a_start_that_single_settings_may_change():
    changed = with_overrides(
        PRESETS["rloo"], ["--aggregation", "token-mean", "--clip-high", "None", "--kl-weight", "0.1"], prog="test"
    )
    assert changed == dataclasses.replace(PRESETS["rloo"], aggregation="token-mean", clip_high=None, kl_weight=0.1)
    with pytest.raises(UserError, match="clip"):
        with_overrides(PRESETS["rloo"], ["--clip-hihg", "0.3"], prog="test")
