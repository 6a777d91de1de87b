"""Weights in a folder: they come back as they were, and everything that does not fit is named."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from tiny_models import micro, micro_params, micro_policy

import moonseg_jax
from moonseg_jax.errors import UserError
from moonseg_jax.policy import load_policy
from moonseg_jax.weights import POLICY, load_model_config, load_weights, save_weights


@pytest.fixture
def folder(tmp_path):
    save_weights(tmp_path, POLICY, micro_params(), micro())
    return tmp_path


def shapes_of(params):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)


def load(folder, params=None):
    return load_weights(folder, POLICY, shapes_of(micro_params() if params is None else params))


def test_a_policy_comes_back_as_it_was(folder):
    policy, params = load_policy(folder)
    assert policy.config == micro()
    jax.tree.map(np.testing.assert_array_equal, params, micro_params())
    assert sorted(file.name for file in folder.iterdir()) == ["model.json", "policy.safetensors"]


def test_bfloat16_rounds_once_and_takes_half_the_space(folder, tmp_path):
    full = (folder / "policy.safetensors").stat().st_size
    file = save_weights(tmp_path / "half", POLICY, micro_params(), micro(), dtype="bfloat16")
    assert file.stat().st_size < 0.6 * full
    params = load(tmp_path / "half")
    rounded = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16).astype(np.float32), micro_params())
    jax.tree.map(lambda leaf, like: np.testing.assert_array_equal(leaf, like, strict=True), params, rounded)
    save_weights(tmp_path / "again", POLICY, params, micro(), dtype="bfloat16")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "again"), params)


def test_missing_and_foreign_tensors_are_named(folder):
    wanted = micro_params()
    wanted["text"]["head"]["scale"] = wanted["text"]["head"].pop("bias")
    with pytest.raises(UserError) as error:
        load(folder, wanted)
    assert "text/head/scale: missing" in str(error.value)
    assert "text/head/bias: not part of this model" in str(error.value)
    assert str(folder / "policy.safetensors") in str(error.value)


def test_tensors_of_other_sizes_are_named_with_both_shapes(folder):
    config = micro()
    wider = dataclasses.replace(config, text=dataclasses.replace(config.text, vocabulary=330))
    with pytest.raises(UserError, match=r"text/head/bias: shape \(320,\), the model has \(330,\)"):
        load_policy(folder, wider)


def test_many_problems_are_counted(folder):
    with pytest.raises(UserError, match=r"; and \d+ more"):
        load(folder, {"other": {"kernel": np.zeros(3)}})


@pytest.mark.parametrize("kept", [0, 4, 300, -100])
def test_a_truncated_file_is_refused(folder, kept):
    file = folder / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match="cannot be read"):
        load(folder)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"policy\.safetensors is missing"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"model\.json is missing"):
        load_policy(tmp_path)


def test_numbers_of_an_unknown_type_are_refused(tmp_path):
    header = b'{"a":{"dtype":"F8_E5M2","shape":[4],"data_offsets":[0,4]}}'
    (tmp_path / "policy.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="numbers of a type that cannot be read"):
        load_weights(tmp_path, POLICY, {"a": np.zeros(4)})


def without_width(record):
    del record["text"]["width"]
    return json.dumps(record).encode()


def unknown_size(record):
    record["vision"]["depth"] = 3
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "broken",
    [
        without_width,
        unknown_size,
        lambda record: b"{",
        lambda record: b"[]",
        lambda record: b"\xff\xfe{}",
        lambda record: json.dumps({**record, "refiner": "none"}).encode(),
    ],
    ids=["setting missing", "setting unknown", "not JSON", "no object", "not text", "not settings"],
)
def test_a_broken_model_config_is_refused_by_name(folder, broken):
    file = folder / "model.json"
    file.write_bytes(broken(json.loads(file.read_text())))
    with pytest.raises(UserError, match=r"model\.json is not a model config"):
        load_model_config(folder)


def test_sizes_that_cannot_work_are_refused(folder):
    file = folder / "model.json"
    record = json.loads(file.read_text())
    record["vision"]["crop"] = 47
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"vision\.crop must be a multiple"):
        load_model_config(folder)


def test_a_failed_write_leaves_the_old_weights(folder, monkeypatch):
    def fail(flat, partial):
        partial.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr("moonseg_jax.weights.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        save_weights(folder, POLICY, micro_params(seed=1), micro())
    jax.tree.map(np.testing.assert_array_equal, load(folder), micro_params())


def test_every_parameter_of_the_policy_is_wanted(folder):
    assert jax.tree.structure(micro_policy().shapes()) == jax.tree.structure(load(folder))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"written_by": {"version": "7.1.0", "format": 2}},
            "is of format 2, this version reads 1: moonseg-jax 7.1.0 wrote",
        ),
        (
            {"written_by": {"version": "0.0.9", "format": 1}, "text": {}},
            "cannot|can read: .*; moonseg-jax 0.0.9 wrote it",
        ),
    ],
)
def test_weights_of_another_version_are_refused_with_that_version_and_the_way_to_convert(folder, change, told):
    file = folder / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match=told) as refused:
        load_model_config(folder)
    assert "moonseg export --checkpoint FOLDER --format hf" in str(refused.value)


def test_weights_say_which_version_wrote_them_and_older_ones_without_it_are_read(folder):
    file = folder / "model.json"
    written = json.loads(file.read_text())
    model = load_model_config(folder)
    assert written.pop("written_by") == {"version": moonseg_jax.__version__, "format": 1}
    file.write_text(json.dumps(written))
    assert load_model_config(folder) == model
