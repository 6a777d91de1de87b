"""Settings of the stages: recipes by name, changes on the command line, and what is refused."""

import dataclasses
import json

import pytest
from tiny_models import micro

from moonseg_jax.config import ConfigError
from moonseg_jax.config_file import config_text, load_config, with_overrides
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.learner.policy_presets import PRESETS, PolicyLossConfig, preset
from moonseg_jax.run_directory import RunDirectory
from moonseg_jax.train_config import RefinerConfig, RlConfig

RL = RlConfig(
    model=micro(), data="", start_from="", steps=8, images_per_batch=6, eval_every=4, checkpoint_every=4,
    optimizer=OptimizerConfig(),
)  # fmt: skip

REFINER = RefinerConfig(
    model=micro(), data="", policy="", pairs="pairs.npz", steps=8, images_per_batch=6, eval_every=4,
    checkpoint_every=4, optimizer=OptimizerConfig(),
)  # fmt: skip


def test_a_config_file_names_a_recipe_and_the_command_line_changes_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import dataclasses\n"
        "from experiments import shapes_tiny\n"
        "from moonseg_jax.learner.policy_presets import preset\n"
        "def get_config(stage):\n"
        "    return dataclasses.replace(shapes_tiny.rl(), loss=preset('dapo'))\n"
    )
    config = load_config(file, "rl")
    assert config.loss == PRESETS["dapo"]
    words = ["--loss.clip-high", "0.3", "--loss.clip-low=None", "--loss.kl-weight", "0.02", "--microbatches", "2"]
    changed = with_overrides(config, words, prog="test")
    expected = dataclasses.replace(PRESETS["dapo"], clip_high=0.3, clip_low=None, kl_weight=0.02)
    assert changed == dataclasses.replace(config, loss=expected, microbatches=2)


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_comes_back_from_the_text_of_its_config(name, tmp_path):
    text = config_text(dataclasses.replace(RL, loss=preset(name)))
    assert PolicyLossConfig(**json.loads(text)["loss"]) == preset(name)
    RunDirectory.create(tmp_path, "rl", text)
    RunDirectory.resume(tmp_path, "rl", text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": preset("reinforce"), "updates_per_rollout": 2},
            "ratio is none.*to 1, set loss.correction_cap",
        ),
        ({"loss": PolicyLossConfig(overlong_weight=1.0, overlong_buffer=25)}, "overlong_buffer is 25.* 24 tokens"),
        ({"microbatches": 4}, "microbatches is 4: it must divide images_per_batch, 6"),
        ({"microbatches": 0}, "microbatches is 0: it must be at least 1"),
        ({"updates_per_rollout": 0}, "updates_per_rollout is 0"),
        ({"max_skipped_steps": 0}, "max_skipped_steps is 0"),
        ({"group": 1}, "at least 2 samples per prompt"),
        ({"inject_below": 1.5}, "inject_below is 1.5: an IoU lies in 0 to 1"),
        ({"inject_below": 0.1, "loss": preset("reinforce")}, "would take the injected path for a sample of the policy"),
        ({"credit": "tokens"}, "credit is 'tokens': it must be path or token"),
        ({"credit": "token", "loss": preset("grpo")}, "loss.scale is group-std.*set loss.scale to none, or credit to"),
        ({"credit": "token", "loss": preset("dr_grpo")}, "loss.baseline is group-mean.*leave-one-out, or credit to"),
        ({"top_p": 0.9}, "^top_p is 0.9: rollouts for training are drawn from the whole distribution.*probability 0"),
        ({"top_k": 5, "top_p": 0.5}, "^top_k is 5 and top_p is 0.5: "),
    ],
)
def test_settings_that_cannot_work_together_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(RL, **changes)


@pytest.mark.parametrize("words", [["--top-p", "0.9"], ["--top-k=3"]])
def test_truncated_sampling_is_refused_on_the_command_line_with_the_reason(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        with_overrides(RL, words, prog="test")
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stopped.value.code == 2
    assert "Truncated sampling draws from another one than the stored log-probabilities are of" in said


def test_truncation_that_cuts_nothing_off_is_no_error():
    dataclasses.replace(RL, top_k=0, top_p=1.0)
    assert with_overrides(RL, ["--top-p", "1.0", "--top-k", "None"], prog="test").top_p == 1.0


def test_a_score_function_may_take_several_steps_where_it_is_corrected():
    corrected = dataclasses.replace(preset("reinforce"), correction_cap=2.0)
    dataclasses.replace(RL, loss=corrected, updates_per_rollout=4)
    assert not corrected.needs_old_log_probs
    assert PolicyLossConfig(correction_cap=2.0).needs_old_log_probs and not PolicyLossConfig().needs_old_log_probs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": None}, "pairs_from is rollouts, but pairs is None: name the pairs.npz of an RL run, or set"),
        ({"pairs": None, "pairs_from": "both", "pair_count": 9}, "pairs_from is both, but pairs is None"),
        ({"pairs": None, "pairs_from": "synthetic"}, "pair_count is None, and so is pairs: say how many"),
        ({"pairs_from": "rollout"}, "pairs_from is 'rollout': it must be rollouts, synthetic or both"),
        ({"pair_count": 0}, "pair_count is 0: it must be at least 1"),
        ({"identity_share": 1.5}, "identity_share is 1.5: a share lies in 0 to 1"),
        ({"identity_share": -0.1}, "identity_share is -0.1"),
        ({"box_jitter": 1.0}, "box_jitter is 1.0: it must be at least 0 and below 1"),
        ({"feature_cache_gib": 0.0}, "feature_cache_gib is 0.0: it must be above 0; cache_features False"),
    ],
)
def test_refiner_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(REFINER, **changes)


def test_synthetic_pairs_alone_need_no_file():
    config = dataclasses.replace(REFINER, pairs=None, pairs_from="synthetic", pair_count=9)
    words = ["--pairs-from", "both", "--pairs", "mine.npz", "--identity-share", "0.1", "--no-cache-features"]
    changed = with_overrides(config, words, prog="test")
    assert (changed.pairs, changed.pairs_from, changed.identity_share, changed.cache_features, changed.pair_count) == (
        "mine.npz", "both", 0.1, False, 9,
    )  # fmt: skip
