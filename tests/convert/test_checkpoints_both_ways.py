"""Official weights into a checkpoint on disk and out again, and what is left behind when that fails."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import official_checkpoints
import pytest
import tiny_models
from etils import epath
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models

from moonseg_jax.commands_convert import Export, Import
from moonseg_jax.convert.importing import import_checkpoint
from moonseg_jax.convert.layered import LayeredPolicy, restore_host, restore_sharded, with_own_tokenizer
from moonseg_jax.convert.moondream import import_policy
from moonseg_jax.convert.names import Naming
from moonseg_jax.convert.problems import TensorsDoNotFit
from moonseg_jax.convert.pytorch import export_checkpoint, parse_size
from moonseg_jax.convert.shapes import policy_shapes
from moonseg_jax.errors import UserError
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.sharding import make_mesh, replicated
from moonseg_jax.shipped import shipped
from moonseg_jax.weights import POLICY, load_model_config, save_weights

TOY = official_checkpoints.toy()


@pytest.fixture(scope="module")
def half():
    """A checkpoint in bfloat16 with norms in float32."""
    tensors = official_checkpoints.random_tensors(TOY, Naming.MD3)
    return {
        name: tensor if ".ln." in name or "norm" in name else tensor.astype(ml_dtypes.bfloat16)
        for name, tensor in tensors.items()
    }


@pytest.fixture(scope="module")
def official(half, tmp_path_factory):
    return official_checkpoints.write(tmp_path_factory.mktemp("official"), TOY, half)


@pytest.fixture(scope="module")
def checkpoint(official, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported") / "checkpoint"
    import_checkpoint(official, folder)
    return folder


def exported(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return {name: tensor for file in sorted(folder.glob("model-*")) for name, tensor in load_file(file).items()}


def restored(folder: pathlib.Path) -> dict:
    config = load_model_config(folder)
    return restore_host(LayeredPolicy(epath.Path(folder)), policy_shapes(config), np.dtype(np.float32))


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("seed", official_checkpoints.SEEDS)
def test_fixtures_come_back_byte_for_byte_under_their_own_names(seed, tmp_path):
    folder, naming = official_checkpoints.fixture(seed), official_checkpoints.SEEDS[seed]
    report = import_checkpoint(
        folder / f"weights_{naming}.safetensors", tmp_path / "checkpoint", config=folder / "config.json",
        refiner=folder / "refiner_head.safetensors",
    )  # fmt: skip
    assert (report.naming, report.parameters, report.refiner_parameters) == (naming, 421_520, 391_364)
    written = export_checkpoint(
        tmp_path / "checkpoint", tmp_path / "out", naming=Naming(naming), refiner=True, max_shard=500_000
    )
    weights = load_file(folder / f"weights_{naming}.safetensors")
    official_checkpoints.same(exported(tmp_path / "out"), weights)
    head = load_file(folder / "refiner_head.safetensors")
    official_checkpoints.same(load_file(tmp_path / "out" / "refiner.safetensors"), head)
    sizes = [sum(tensor.nbytes for tensor in load_file(file).values()) for file in (tmp_path / "out").glob("model-*")]
    assert len(sizes) > 1 and max(sizes) <= 500_000 and sum(sizes) == written.bytes
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == weights.keys()
    assert index["metadata"]["total_size"] == written.bytes


def test_streamed_checkpoint_equals_the_import_in_memory(checkpoint, official):
    config, expected = import_policy(official, TOY)
    assert load_model_config(checkpoint) == config
    assert_equal(restored(checkpoint), jax.tree.map(lambda leaf: leaf.astype(np.float32), expected))
    assert sorted(file.name for file in checkpoint.iterdir()) == ["import.json", "model.json", "policy"]


def test_sharded_restore_fills_stacks_layer_by_layer(checkpoint):
    shapes = policy_shapes(TOY)
    placed = dict.fromkeys(shapes, replicated(make_mesh()))
    params = restore_sharded(LayeredPolicy(epath.Path(checkpoint)), shapes, np.dtype(jnp.bfloat16), placed)
    assert {(leaf.dtype.name, leaf.sharding) for leaf in jax.tree.leaves(params)} == {
        ("bfloat16", replicated(make_mesh()))
    }
    assert_equal(params, jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), restored(checkpoint)))


def test_both_namings_keep_every_byte_and_type(checkpoint, half, tmp_path):
    export_checkpoint(checkpoint, tmp_path / "md3", naming=Naming.MD3)
    official_checkpoints.same(exported(tmp_path / "md3"), half)
    export_checkpoint(checkpoint, tmp_path / "hf", naming=Naming.HF)
    import_checkpoint(tmp_path / "hf", tmp_path / "back")
    export_checkpoint(tmp_path / "back", tmp_path / "again", naming=Naming.MD3)
    official_checkpoints.same(exported(tmp_path / "again"), half)


def test_exported_and_imported_model_gives_the_same_logits_to_the_bit(checkpoint, tmp_path):
    export_checkpoint(checkpoint, tmp_path / "out", naming=Naming.HF)
    config, params = import_policy(tmp_path / "out", TOY)
    model = Moondream(config)
    grid, crop = config.vision.grid, config.vision.crop
    rng = np.random.default_rng(0)
    inputs = (
        rng.integers(0, 256, (1, 1, crop, crop, 3), np.uint8), np.eye(grid, dtype=np.float32)[None, None],
        np.eye(grid, dtype=np.float32)[None, None], np.array([[1, 5, 6, 40]], np.int32),
        rng.random((1, 4, 2), np.float32), np.array([4], np.int32),
    )  # fmt: skip
    forward = jax.jit(lambda params: model.apply({"params": params}, *inputs))
    run = tiny_models.compile_quickly(forward, restored(checkpoint))
    first = run(restored(checkpoint))
    second = run(jax.tree.map(lambda leaf: leaf.astype(np.float32), params))
    assert float(np.std(first.token)) > 0.1
    assert_equal(first, second)


def test_quantised_and_joint_tensors_are_stable_after_one_pass(half, tmp_path):
    floats = {name: tensor.astype(np.float32) for name, tensor in half.items()}
    stored, meant = official_checkpoints.with_quantised_experts(floats)
    at = "text_model.transformer.h.0.tau_"
    stored[f"{at}wqwv"] = np.concatenate([stored.pop(f"{at}wq"), stored.pop(f"{at}wv")])
    report = import_checkpoint(official_checkpoints.write(tmp_path / "fp8", TOY, stored), tmp_path / "checkpoint")
    assert (report.fp8_tensors, report.tensors) == (4, len(meant))
    export_checkpoint(tmp_path / "checkpoint", tmp_path / "out", naming=Naming.MD3)
    official_checkpoints.same(exported(tmp_path / "out"), meant)


def test_trained_weights_are_exported_too(tmp_path):
    config, params = tiny_models.micro(), tiny_models.micro_params()
    save_weights(tmp_path / "trained", POLICY, params, config)
    export_checkpoint(tmp_path / "trained", tmp_path / "out", naming=Naming.HF, dtype="float32")
    read, back = import_policy(tmp_path / "out", config)
    assert read == config
    assert_equal(back, params)
    import_checkpoint(tmp_path / "out", tmp_path / "checkpoint")
    assert load_model_config(tmp_path / "checkpoint") == config


def test_nothing_half_written_stays_behind(half, tmp_path):
    broken = dict(half)
    broken["text_model.lm_head.linear.bias"] = np.full(TOY.text.vocabulary, np.nan, np.float32)
    source = official_checkpoints.write(tmp_path / "official", TOY, broken)
    (tmp_path / "work" / ".out.partial").mkdir(parents=True)
    (tmp_path / "work" / ".out.partial" / "left by a killed process").touch()
    with pytest.raises(TensorsDoNotFit, match=r"NaN or infinite values in:\n  text_model\.lm_head\.linear\.bias"):
        import_checkpoint(source, tmp_path / "work" / "out")
    assert list((tmp_path / "work").iterdir()) == []


def test_existing_folders_are_never_overwritten(official, checkpoint):
    before = sorted(checkpoint.rglob("*"))
    with pytest.raises(UserError, match="exists already"):
        import_checkpoint(official, checkpoint)
    with pytest.raises(UserError, match="exists already"):
        export_checkpoint(checkpoint, official, naming=Naming.HF)
    assert sorted(checkpoint.rglob("*")) == before


def test_checkpoints_without_what_is_asked_for_are_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match="holds no refiner"):
        export_checkpoint(checkpoint, tmp_path / "out", naming=Naming.HF, refiner=True)
    other = json.loads((checkpoint / "model.json").read_text())
    other["text"]["mlp_width"] = 17
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="holds no policy"):
        export_checkpoint(tmp_path / "other", tmp_path / "out", naming=Naming.HF)
    (tmp_path / "other" / "policy").symlink_to(checkpoint / "policy")
    with pytest.raises(
        UserError, match=r"another model:\n  text/dense/000/mlp/fc1/bias: stored \(16,\), the model has \(17,\)"
    ):
        export_checkpoint(tmp_path / "other", tmp_path / "out", naming=Naming.HF)


def tokenizer(file: pathlib.Path, size: int) -> pathlib.Path:
    Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0")).save(str(file))
    return file


def test_tokenizer_travels_with_the_checkpoint(official, tmp_path):
    fits = tokenizer(tmp_path / "t.json", TOY.text.vocabulary)
    report = import_checkpoint(official, tmp_path / "checkpoint", tokenizer=fits)
    assert report.tokenizer
    config = with_own_tokenizer(load_model_config(tmp_path / "checkpoint"), epath.Path(tmp_path / "checkpoint"))
    assert pathlib.Path(config.paths.tokenizer).read_bytes() == fits.read_bytes()
    export_checkpoint(tmp_path / "checkpoint", tmp_path / "out", naming=Naming.HF)
    assert import_checkpoint(tmp_path / "out", tmp_path / "back").tokenizer


def test_tokenizer_of_another_model_is_refused(official, tmp_path):
    large = tokenizer(tmp_path / "t.json", TOY.text.vocabulary + 1)
    with pytest.raises(UserError, match=r"ids up to 320, the embedding has 320 rows"):
        import_checkpoint(official, tmp_path / "checkpoint", tokenizer=large)
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(UserError, match="is no tokenizer"):
        import_checkpoint(official, tmp_path / "checkpoint", tokenizer=tmp_path / "no.json")
    assert not (tmp_path / "checkpoint").exists()


def test_commands_report_what_was_done_and_what_does_not_fit(official, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "found.json"
    Import(weights=str(official), out="checkpoint", dtype="bfloat16", json=str(found)).run()
    report = json.loads(found.read_text())
    total = sum(int(np.prod(shape)) for shape in policy_shapes(TOY).values())
    assert (report["ok"], report["naming"], report["dtypes"]) == (True, "md3", {"bfloat16": total})
    Export(checkpoint="checkpoint", format="hf", out="out", max_shard="4KiB").run()
    tensors = exported(tmp_path / "out")
    assert {tensor.dtype.name for tensor in tensors.values()} == {"bfloat16"}
    assert f"{len(tensors)} tensors" in capsys.readouterr().out
    wide = dataclasses.replace(TOY, text=dataclasses.replace(TOY.text, vocabulary=321))
    (tmp_path / "wide").mkdir()
    config = official_checkpoints.write(tmp_path / "wide", wide, {}) / "config.json"
    with pytest.raises(TensorsDoNotFit):
        Import(weights=str(official), config=str(config), out=str(tmp_path / "no"), json=str(found)).run()
    problems = json.loads(found.read_text())["problems"]
    assert problems["wrong_shape"]["text_model.lm_head.linear.bias"] == {"expected": [321], "found": [320]}
    assert len(problems["wrong_shape"]) == 3


@pytest.mark.parametrize(("text", "size"), [("5GiB", 5 << 30), ("1.5 MB", 1_500_000), ("77", 77), ("2kib", 2048)])
def test_sizes_are_read_with_their_units(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5TiB", "-1GB", "GiB", "0"])
def test_other_sizes_are_refused(text):
    with pytest.raises(UserError, match="--max-shard"):
        parse_size(text)


def test_policy_and_refiner_of_different_stages_leave_together(checkpoint, tmp_path):
    """Training writes them into runs of their own; PyTorch wants one folder."""
    report = export_checkpoint(
        shipped("rl"), tmp_path / "out", naming=Naming.HF, refiner=True, refiner_from=shipped("refiner")
    )
    assert {"model-00001-of-00001.safetensors", "refiner.safetensors", "tokenizer.json"} <= set(report.files)
    again = import_checkpoint(
        tmp_path / "out", tmp_path / "checkpoint", refiner=tmp_path / "out" / "refiner.safetensors"
    )
    assert again.tokenizer and again.refiner_parameters > 500_000
    assert load_file(tmp_path / "checkpoint" / "refiner.safetensors").keys() == (
        load_file(shipped("refiner") / "refiner.safetensors").keys()
    )
    with pytest.raises(UserError, match="goes with other sizes"):
        export_checkpoint(checkpoint, tmp_path / "no", naming=Naming.HF, refiner=True, refiner_from=shipped("refiner"))


def test_torch_refiner_file_holds_the_official_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    folder = official_checkpoints.fixture("A_seed0")
    head = load_file(folder / "refiner_head.safetensors")
    import_checkpoint(
        folder / "weights_md3.safetensors", tmp_path / "checkpoint", config=folder / "config.json",
        refiner=folder / "refiner_head.safetensors",
    )  # fmt: skip
    export_checkpoint(tmp_path / "checkpoint", tmp_path / "out", naming=Naming.MD3, refiner=True)
    state = torch.load(tmp_path / "out" / "refiner.pt", weights_only=True)["head"]
    assert state.keys() == head.keys()
    assert {name: tensor.view(torch.int16).numpy().tobytes() for name, tensor in state.items()} == {
        name: tensor.tobytes() for name, tensor in head.items()
    }
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    again = import_checkpoint(
        folder / "weights_md3.safetensors", tmp_path / "again", config=folder / "config.json",
        refiner=tmp_path / "out" / "refiner.pt",
    )  # fmt: skip
    assert again.refiner_parameters == 391_364
    same = (tmp_path / "again" / "refiner.safetensors").read_bytes()
    assert same == (tmp_path / "checkpoint" / "refiner.safetensors").read_bytes()
