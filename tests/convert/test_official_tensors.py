"""Official checkpoints in memory: namings, variants, and what is refused."""

import dataclasses
import json
import sys
import types
from fnmatch import fnmatch

import jax
import ml_dtypes
import numpy as np
import official_checkpoints
import pytest
from etils import epath
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from moonseg_jax.convert.config import model_config, read_config, refiner_encoder_config
from moonseg_jax.convert.moondream import import_policy, import_refiner, import_vision
from moonseg_jax.convert.names import Naming
from moonseg_jax.convert.official import OfficialTensors
from moonseg_jax.convert.problems import TensorsDoNotFit
from moonseg_jax.convert.reading import local_path, open_source
from moonseg_jax.convert.shapes import policy_shapes, refiner_shapes
from moonseg_jax.errors import UserError

TOY = official_checkpoints.toy()


@pytest.fixture(scope="module")
def md3():
    return official_checkpoints.random_tensors(TOY, Naming.MD3)


def imported(folder, tensors, config=TOY, dtype="keep"):
    return import_policy(official_checkpoints.write(folder, config, tensors), config, dtype)


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("seed", official_checkpoints.SEEDS)
def test_fixtures_fill_every_leaf(seed):
    folder, naming = official_checkpoints.fixture(seed), official_checkpoints.SEEDS[seed]
    fields = read_config(folder / "config.json")
    weights = folder / f"weights_{naming}.safetensors"
    config, params = import_policy(weights, model_config(fields))
    assert {path: leaf.shape for path, leaf in flatten_dict(params).items()} == policy_shapes(config)
    official = load_file(weights)
    if naming == "hf":
        expert = official["model.text.blocks.3.mlp.fc2.weight"][5]
        frequencies = official["model.region.coord_features"]
    else:
        expert = official["text_model.transformer.h.3.mlp.output_experts.weight"][5]
        frequencies = official["region_model.coordinate_features.weight"].T
    np.testing.assert_array_equal(params["text"]["routed"]["moe"]["down"][1, 5], expert.T)
    np.testing.assert_array_equal(params["region"]["coord_frequencies"], frequencies)
    encoder = refiner_encoder_config(fields)
    head = import_refiner(folder / "refiner_head.safetensors", encoder)
    assert {path: leaf.shape for path, leaf in flatten_dict(head).items()} == refiner_shapes(encoder)
    assert head["mask_tokens"].dtype == ml_dtypes.bfloat16
    vision = import_vision(folder / f"refiner_vision_{naming}.safetensors", encoder)
    assert vision["vision"]["blocks"]["qkv"]["kernel"].shape == (10, 32, 96)


def test_both_namings_and_names_without_model_or_with_orig_mod_are_one_checkpoint(tmp_path, md3):
    hf = official_checkpoints.random_tensors(TOY, Naming.HF)
    _, expected = imported(tmp_path / "md3", md3)
    for name in ("region_model.coordinate_features.weight", "region_model.size_features.weight"):
        hf_name = name.replace("region_model.coordinate", "model.region.coord").replace("region_model", "model.region")
        hf[hf_name.removesuffix(".weight")] = md3[name].T
    _, params = imported(tmp_path / "hf", hf)
    assert_equal(params, expected)
    _, params = imported(tmp_path / "bare", {name.removeprefix("model."): tensor for name, tensor in hf.items()})
    assert_equal(params, expected)
    compiled = {name.replace(".h.", "._orig_mod.h.").replace(".ln.", ".ln._orig_mod."): md3[name] for name in md3}
    _, params = imported(tmp_path / "compiled", compiled)
    assert_equal(params, expected)


def test_quantised_experts_are_multiplied_with_their_scales(tmp_path, md3):
    stored, meant = official_checkpoints.with_quantised_experts(md3)
    _, params = imported(tmp_path / "fp8", stored)
    _, expected = imported(tmp_path / "float32", meant)
    assert_equal(params, expected)
    assert params["text"]["routed"]["moe"]["up"].dtype == np.float32


def test_quantised_values_are_the_official_ones(tmp_path):
    folder = official_checkpoints.fixture("A_seed0")
    inputs, expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
    name = "text_model.transformer.h.3.mlp.experts.weight"
    scales = "text_model.transformer.h.3.moe_quant.up_scale"
    tau = "text_model.transformer.h.3.tau_alpha"
    up = inputs["fp8/up_bytes"].view(ml_dtypes.float8_e4m3fn)
    save_file({name: up, scales: inputs["fp8/up_scale"], tau: np.zeros(4, np.float32)}, tmp_path / "x.safetensors")
    tensors = OfficialTensors(open_source(local_path(tmp_path / "x.safetensors")), "x")
    assert tensors.entries.keys() == {name, tau}
    np.testing.assert_array_equal(tensors.read(name)[0], expected["fp8/up_dequant_expert0"])
    np.testing.assert_array_equal(tensors.read(name, (0, 1))[0], expected["fp8/up_dequant_expert0"])


def test_joint_tau_matrix_is_split_into_queries_and_values(tmp_path, md3):
    joint = dict(md3)
    for block in range(TOY.text.layers):
        at = f"text_model.transformer.h.{block}.tau_"
        joint[f"{at}wqwv"] = np.concatenate([joint.pop(f"{at}wq"), joint.pop(f"{at}wv")])
    _, params = imported(tmp_path / "joint", joint)
    _, expected = imported(tmp_path / "pair", md3)
    assert_equal(params, expected)


def test_region_norm_is_detected_whatever_the_config_says(tmp_path, md3):
    without = {name: tensor for name, tensor in md3.items() if not name.startswith("region_model.ln.")}
    config, params = imported(tmp_path, without)
    assert not config.region.layer_norm
    assert "ln" not in params["region"]
    config, _ = imported(tmp_path, md3, dataclasses.replace(TOY, region=config.region))
    assert config.region.layer_norm


def test_a_model_without_routed_blocks_has_empty_stacks(tmp_path):
    dense = official_checkpoints.toy(dense_layers=3)
    _, params = imported(tmp_path, official_checkpoints.random_tensors(dense, Naming.HF), dense)
    assert {path: leaf.shape for path, leaf in flatten_dict(params).items()} == policy_shapes(dense)


def test_storage_types_are_kept_or_changed_on_request(tmp_path, md3):
    half = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in md3.items()}
    mixed = {name: md3[name] if ".h.2." in name else tensor for name, tensor in half.items()}
    _, kept = imported(tmp_path, half)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(kept)} == {"bfloat16"}
    _, stacked = imported(tmp_path, mixed)
    routed = stacked["text"]["routed"]["ln"]["scale"]
    assert routed.dtype == np.float32
    np.testing.assert_array_equal(routed[1], md3["text_model.transformer.h.2.ln.weight"])
    _, wide = imported(tmp_path, half, dtype="float32")
    _, narrow = imported(tmp_path, md3, dtype="bfloat16")
    assert_equal(jax.tree.map(lambda leaf: leaf.astype(np.float32), narrow), wide)


def test_everything_that_does_not_fit_is_told_at_once(tmp_path, md3):
    wrong = dict(md3)
    del wrong["text_model.lm_head.ln.bias"], wrong["vision_encoder.encoder.model.visual.blocks.1.norm2.weight"]
    wrong["text_model.transformer.h.9.ln.weight"] = np.zeros(8, np.float32)
    wrong["region_model.size_head.bias"] = np.zeros(13, np.float32)
    wrong["text_model.transformer.h.0.tau_alpha"] = np.zeros(2, np.int32)
    experts = "text_model.transformer.h.1.mlp.experts.weight"
    wrong[experts] = wrong[experts].astype(ml_dtypes.float8_e4m3fn)
    with pytest.raises(TensorsDoNotFit) as caught:
        imported(tmp_path, wrong)
    assert caught.value.problems == {
        "missing": {
            "vision_encoder.encoder.model.visual.blocks.1.norm2.weight": [8],
            "text_model.lm_head.ln.bias": [8],
        },
        "unexpected": {"text_model.transformer.h.9.ln.weight": [8]},
        "wrong_shape": {"region_model.size_head.bias": {"expected": [14], "found": [13]}},
        "wrong_dtype": {"text_model.transformer.h.0.tau_alpha": "int32", experts: "float8_e4m3fn"},
    }
    for line in (
        "missing: text_model.lm_head.ln.bias, expected shape [8]",
        "wrong shape: region_model.size_head.bias, expected [14], found [13]",
    ):
        assert line in str(caught.value)


def test_tensors_with_values_that_are_no_numbers_are_all_named(tmp_path, md3):
    broken = dict(md3)
    names = ["text_model.transformer.h.1.mlp.experts.weight", "text_model.lm_head.linear.bias"]
    for name, value in zip(names, (np.nan, np.inf)):
        broken[name] = md3[name].copy()
        broken[name].flat[-1] = value
    with pytest.raises(TensorsDoNotFit) as caught:
        imported(tmp_path, broken)
    assert caught.value.problems == {"not_finite": names}


def moondream2(md3):
    return {
        "model.text.blocks.0.attn.qkv.weight": np.zeros((3, 1)),
        "model.region.coord_decoder.fc1.weight": np.zeros(2),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (moondream2, "is a Moondream 2 checkpoint"),
        (lambda md3: {name: t for name, t in md3.items() if ".tau" not in name}, "is a Moondream 2 checkpoint"),
        (lambda md3: md3 | {"model.text.wte": np.zeros(3)}, "mixes two namings"),
        (lambda md3: {"encoder.layer.0.weight": np.zeros(3)}, "no names of a Moondream 3 checkpoint"),
        (lambda md3: md3 | {"model.region_model.ln.bias": np.zeros(8)}, "region_model.ln.bias twice"),
    ],
)
def test_other_checkpoints_are_named_as_what_they_are(tmp_path, md3, change, said):
    with pytest.raises(UserError, match=said):
        imported(tmp_path, change(md3))


def sharded(folder, md3):
    names = sorted(md3)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    folder.mkdir()
    for file, part in parts.items():
        save_file({name: md3[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_shards_are_one_checkpoint_and_missing_ones_are_named(tmp_path, md3):
    index = sharded(tmp_path / "sharded", md3)
    _, params = import_policy(tmp_path / "sharded", TOY)
    _, expected = imported(tmp_path / "whole", md3)
    assert_equal(params, expected)
    index["weight_map"]["region_model.ln.bias"] = "c.safetensors"
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"shards that are missing: c\.safetensors"):
        import_policy(tmp_path / "sharded", TOY)
    save_file({"region_model.ln.weight": np.zeros(8)}, tmp_path / "sharded" / "c.safetensors")
    with pytest.raises(UserError, match=r"disagree: region_model\.ln\.bias \(index: c"):
        import_policy(tmp_path / "sharded", TOY)
    index["weight_map"]["region_model.ln.bias"] = "../c.safetensors"
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="beside the index"):
        import_policy(tmp_path / "sharded", TOY)


def test_a_file_cut_short_is_told_wherever_it_ends(tmp_path, md3):
    whole = official_checkpoints.write(tmp_path, TOY, md3) / "model.safetensors"
    data = whole.read_bytes()
    for size in (0, 5, 100, len(data) - 1):
        whole.write_bytes(data[:size])
        with pytest.raises(UserError, match="is cut short"):
            import_policy(whole, TOY)
    whole.write_bytes(data[:8] + b"?" + data[9:])
    with pytest.raises(UserError, match="broken header"):
        import_policy(whole, TOY)


def test_folders_without_clear_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="found: none"):
        import_policy(tmp_path, TOY)
    with pytest.raises(UserError, match="no weights"):
        import_policy(tmp_path / "absent.safetensors", TOY)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(UserError, match=r"neither \.safetensors nor \.pt"):
        import_policy(tmp_path / "model.gguf", TOY)


def test_optional_packages_are_asked_for_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="needs huggingface_hub"):
        local_path("hf:moondream/moondream3-preview")
    with pytest.raises(UserError, match="needs PyTorch"):
        open_source(local_path(tmp_path / "model.pt"))


def test_repositories_are_downloaded_without_pickled_files_and_code(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(repository, allow_patterns):
        asked.append((repository, allow_patterns))
        if repository == "no/such":
            raise OSError("404: no such repository")
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    assert local_path("hf:moondream/moondream3-preview") == epath.Path(tmp_path)
    assert asked[0][0] == "moondream/moondream3-preview"
    names = ("model-00001-of-00004.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json")
    fetched = [name for name in (*names, "model.pt", "x.py") if any(fnmatch(name, each) for each in asked[0][1])]
    assert fetched == list(names)
    with pytest.raises(UserError, match=r"hf:no/such cannot be downloaded \(404: no such repository\)"):
        local_path("hf:no/such")


def test_torch_files_are_read_and_nothing_but_tensors_is_unpickled(tmp_path, md3):
    torch = pytest.importorskip("torch")
    stored, meant = official_checkpoints.with_quantised_experts(md3)
    state = {
        name: torch.from_numpy(tensor.view(np.uint8).copy()).view(torch.float8_e4m3fn)
        if tensor.dtype.itemsize == 1
        else torch.from_numpy(tensor)
        for name, tensor in stored.items()
    }
    torch.save(state, tmp_path / "model.pt")
    _, params = import_policy(tmp_path / "model.pt", TOY)
    _, expected = imported(tmp_path / "float32", meant)
    assert_equal(params, expected)
    torch.save({"head": {"image_pe": torch.zeros(1), "x": torch.zeros(2, dtype=torch.bfloat16)}}, tmp_path / "head.pt")
    head = open_source(local_path(tmp_path / "head.pt"))
    assert {name: entry.dtype.name for name, entry in head.entries.items()} == {"image_pe": "float32", "x": "bfloat16"}
    torch.save({"weight": print}, tmp_path / "code.pt")
    with pytest.raises(UserError, match="cannot be read as a PyTorch state dict"):
        import_policy(tmp_path / "code.pt", TOY)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be read as a PyTorch state dict"):
        import_policy(tmp_path / "cut.pt", TOY)


def test_torch_tensors_that_numpy_cannot_hold_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    for tensor in (torch.zeros(2).to(torch.float8_e5m2), torch.zeros(2).to_sparse()):
        torch.save({"text_model.lm_head.ln.bias": tensor}, tmp_path / "model.pt")
        with pytest.raises(UserError, match=r"text_model\.lm_head\.ln\.bias is a torch\.\w+ tensor of torch\.float"):
            open_source(local_path(tmp_path / "model.pt"))
    torch.save({1: torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        open_source(local_path(tmp_path / "model.pt"))


def test_scales_of_another_type_are_refused(tmp_path, md3):
    stored, _ = official_checkpoints.with_quantised_experts(md3)
    name = "text_model.transformer.h.1.moe_quant.up_scale"
    with pytest.raises(UserError, match=rf"{name} is int32; scales are float32"):
        imported(tmp_path, stored | {name: stored[name].astype(np.int32)})
