"""Folders in a bucket: the real clients (gcsfs, TensorStore under Orbax) against a small service on this machine."""

import gc
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from convert.official_checkpoints import random_tensors, same, toy, write
from safetensors.numpy import load
from test_checkpoint import assert_same_bits, learner_state

from data_pipelines import local_copy
from data_pipelines.build import build_shapes
from data_pipelines.source import open_split
from moonseg_jax import cli, storage
from moonseg_jax.bucket_errors import explained
from moonseg_jax.checkpoint import Checkpoints
from moonseg_jax.convert.names import Naming
from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import RunDirectory, read_metrics
from moonseg_jax.storage import place
from moonseg_jax.train_start import has_begun

pytest.importorskip("gcsfs", reason="buckets are read with gcsfs: pip install 'moonseg-jax[gcs]'")
from fake_bucket import FakeBuckets

# Orbax leaves unawaited coroutines behind when a save fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def service():
    """One for all: TensorStore keeps the first address that it is told."""
    with FakeBuckets("bucket") as fake, pytest.MonkeyPatch.context() as patch:
        for name, value in fake.environment().items():
            patch.setenv(name, value)
        yield fake


@pytest.fixture
def bucket(service):
    """The same, empty and willing."""
    service.objects.clear()
    service.refuse = lambda method, name: None
    yield service
    gc.collect()


def put(bucket: FakeBuckets, folder: Path, under: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            bucket.write("bucket", f"{under}/{file.relative_to(folder)}", file.read_bytes())


def content(bucket: FakeBuckets, name: str) -> bytes:
    return bucket.objects["bucket", name].content


def test_metrics_are_rewritten_whole_and_go_on_where_another_sitting_left_them(bucket):
    run = RunDirectory.create(place("gs://bucket/run"), "sft", '{"steps": 4}')
    for step in (1, 2, 3):
        run.append_metrics(step, {"loss": step / 2})
        assert content(bucket, "run/metrics.jsonl").count(b"\n") == step
    again = RunDirectory.resume(place("gs://bucket/run"), "sft", '{"steps": 4}')
    again.discard_metrics_after(2)
    again.append_metrics(3, {"loss": 9.0})
    rows = read_metrics(place("gs://bucket/run/metrics.jsonl"))
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 1.0), (3, 9.0)]
    assert bucket.names("bucket") == ["run/config.json", "run/metrics.jsonl"]
    with pytest.raises(UserError, match="gs://bucket/run holds another run already"):
        RunDirectory.create(place("gs://bucket/run"), "sft", "{}")
    with pytest.raises(UserError, match="gs://bucket/none holds no run to resume: leave out --resume"):
        RunDirectory.resume(place("gs://bucket/none"), "sft", "{}")


def save(step: int, seed: int) -> None:
    checkpoints = Checkpoints(place("gs://bucket/run/checkpoints"))
    checkpoints.save(step, learner_state(seed=seed), {"loader": {"next": step}})
    checkpoints.close()


def restored(**how: bool) -> tuple:
    checkpoints = Checkpoints(place("gs://bucket/run/checkpoints"))
    try:
        return checkpoints.restore(learner_state(), **how)
    finally:
        checkpoints.close()


@pytest.mark.parametrize("stopped_at", ["/state/manifest.ocdbt", "3/commit_success.txt"])
def test_a_save_that_ends_half_way_is_not_the_latest(bucket, stopped_at):
    save(2, seed=2)
    bucket.refuse = lambda method, name: 403 if method == "PUT" and name.endswith(stopped_at) else None
    checkpoints = Checkpoints(place("gs://bucket/run/checkpoints"))
    with pytest.raises(Exception, match=r"(?i)forbidden|refused|403|permission") as refused:
        checkpoints.save(3, learner_state(seed=3), {"loader": {"next": 3}})
    assert "gs://bucket: no permission: give this account the roles" in explained(refused.value)
    assert bucket.names("bucket", "run/checkpoints/3/") != []
    bucket.refuse = lambda method, name: None
    step, state, rest = restored()
    assert (step, rest) == (2, {"loader": {"next": 2}})
    assert_same_bits(state, learner_state(seed=2))
    save(3, seed=4)
    assert_same_bits(restored()[1], learner_state(seed=4))


def test_what_a_killed_save_left_is_nothing_to_go_on_from_and_removed_by_the_next_save(bucket):
    save(1, seed=1)
    bucket.objects.pop(("bucket", "run/checkpoints/1/commit_success.txt"))
    assert len(bucket.names("bucket", "run/checkpoints/1/")) > 10
    with pytest.raises(UserError, match="gs://bucket/run/checkpoints holds no finished checkpoint to resume from"):
        restored()
    save(2, seed=2)
    assert bucket.names("bucket", "run/checkpoints/1/") == []
    assert restored()[0] == 2


def test_damage_is_named_and_the_checkpoint_before_it_used_where_allowed(bucket):
    save(2, seed=2)
    save(4, seed=4)
    (name,) = (name for name in bucket.names("bucket", "run/checkpoints/4/state/d/") if name)
    whole = content(bucket, name)
    place_in_it = name.removeprefix("run/checkpoints/4/")
    changed = bytes([whole[0] ^ 1]) + whole[1:]
    for damage, said in ((changed, r"is not what was written \(its CRC-32C differs\)"), (whole[1:], "bytes of")):
        bucket.write("bucket", name, damage)
        with pytest.raises(UserError, match=rf"checkpoints/4 is damaged: {place_in_it} .*{said}.*; --allow-older"):
            restored()
    step, state, _ = restored(allow_older=True)
    assert step == 2
    assert_same_bits(state, learner_state(seed=2))
    assert content(bucket, f"run/checkpoints/4.damaged/{place_in_it}") == whole[1:]
    assert bucket.names("bucket", "run/checkpoints/4/") == []
    assert restored()[0] == 2


def test_a_run_has_begun_once_a_checkpoint_is_committed_and_is_moved_aside_before(bucket, capsys):
    run = place("gs://bucket/run")
    assert not has_begun(run)
    save(2, seed=2)
    committed = bucket.objects.pop(("bucket", "run/checkpoints/2/commit_success.txt"))
    bucket.write("bucket", "run/config.json", b"{}")
    assert not has_begun(run)
    assert "gs://bucket/run has no checkpoint yet: moved to gs://bucket/run.unfinished-" in capsys.readouterr().err
    assert bucket.names("bucket", "run/") == []
    assert any(re.fullmatch(r"run\.unfinished-\w+/config\.json", name) for name in bucket.names("bucket"))
    save(2, seed=2)
    assert has_begun(run)
    del committed


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    build_shapes(folder, train=6, val=2, val_unseen=1, level=1, progress=False)
    return folder


def test_a_data_set_is_copied_once_and_again_when_it_has_changed(bucket, scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("MOONSEG_CACHE", str(tmp_path))
    put(bucket, scenes, "data/shapes")
    read: list[str] = []
    bucket.refuse = lambda method, name: read.append(name) if method == "GET" else None
    here, there = open_split(scenes, "train"), open_split("gs://bucket/data/shapes", "train")
    assert len(there) == len(here) == 6
    assert [there.image_file(k) for k in range(6)] == [here.image_file(k) for k in range(6)]
    assert set(read) == set(bucket.names("bucket"))
    read.clear()
    open_split("gs://bucket/data/shapes", "val")
    assert read == []
    (copy,) = (path for path in tmp_path.iterdir() if path.is_dir())
    bucket.write("bucket", "data/shapes/moonseg_data.json", content(bucket, "data/shapes/moonseg_data.json"))
    open_split("gs://bucket/data/shapes", "val")
    copies = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(copies) == 2 and copy in copies


def test_half_a_copy_is_never_used(bucket, scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("MOONSEG_CACHE", str(tmp_path))
    monkeypatch.setattr(local_copy, "FILES_AT_ONCE", 1)
    put(bucket, scenes, "data")
    last = bucket.names("bucket")[-1]
    bucket.refuse = lambda method, name: 403 if method == "GET" and name == last else None
    with pytest.raises(UserError, match="gs://bucket/data: no permission: give this account the roles"):
        open_split("gs://bucket/data", "train")
    (partial,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert partial.name.endswith(".partial") and any(partial.iterdir())
    bucket.refuse = lambda method, name: None
    assert len(open_split("gs://bucket/data", "train")) == 6
    assert not partial.exists()


def told(capsys, *words: str) -> str:
    assert cli.main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_what_is_missing_is_told_in_one_line_that_says_what_to_do(bucket, capsys, monkeypatch):
    report = ("report", "gs://bucket/run")
    assert "gs://bucket/run holds no run" in told(capsys, *report)
    assert "gs://nowhere/x: no such bucket" in told(capsys, "eval", "--checkpoint", "gs://nowhere/x")
    assert "gs://nowhere/d: no such bucket" in told(capsys, "eval", "--dataset", "gs://nowhere/d", "--stage", "coarse")
    assert "gs://bucket/d holds no data set" in told(capsys, "eval", "--dataset", "gs://bucket/d", "--stage", "coarse")
    assert "gs://bucket/best holds no weights" in told(capsys, "eval", "--checkpoint", "gs://bucket/best")
    for status, words in ((403, "no permission: give this account the roles"), (401, "does not know who asks")):
        bucket.refuse = lambda method, name, status=status: status
        assert words in told(capsys, "eval", "--checkpoint", "gs://bucket/best")
    bucket.refuse = lambda method, name: 403 if method == "PUT" else None
    with pytest.raises(UserError, match="gs://bucket/run: no permission"):
        RunDirectory.create(place("gs://bucket/run"), "sft", "{}")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "gcs")
    assert "pip install 'moonseg-jax[gcs]'" in told(capsys, *report)


def test_weights_are_imported_and_exported_from_and_to_the_bucket_unchanged(bucket, tmp_path, capsys):
    tensors = random_tensors(toy(), Naming.MD3)
    put(bucket, write(tmp_path / "official", toy(), tensors), "official")
    assert cli.main(["import", "--weights", "gs://bucket/official", "--out", "gs://bucket/imported"]) == 0
    words = ["--checkpoint", "gs://bucket/imported", "--format", "md3"]
    assert cli.main(["export", *words, "--out", "gs://bucket/exported"]) == 0
    same(load(content(bucket, "exported/model-00001-of-00001.safetensors")), tensors)
    # Readers look for these first: what was written before them is there, whenever they are.
    assert [name for name in bucket.written if name.startswith("exported/")][-2:] == [
        "exported/model.safetensors.index.json", "exported/config.json",
    ]  # fmt: skip
    assert not any("partial" in name for name in bucket.names("bucket"))
    capsys.readouterr()
    assert "gs://bucket/exported exists already" in told(capsys, "export", *words, "--out", "gs://bucket/exported")


def test_what_another_host_writes_is_seen_at_once(bucket):
    bucket.write("bucket", "run/checkpoints/1/a", b"1")
    folder = place("gs://bucket/run/checkpoints")
    assert [one.name for one in folder.iterdir()] == ["1"] and list(storage.files_under(folder)) == ["1/a"]
    bucket.write("bucket", "run/checkpoints/2/b", b"2")
    assert [one.name for one in folder.iterdir()] == ["1", "2"] and list(storage.files_under(folder)) == ["1/a", "2/b"]
    assert (folder / "2").is_dir() and (folder / "2" / "b").read_bytes() == b"2"


def test_folders_of_this_machine_and_of_the_bucket_are_listed_alike(bucket, tmp_path):
    for name in ("a.txt", "deep/b.txt", "deep/er/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    put(bucket, tmp_path, "folder")
    bucket.write("bucket", "folder/made-by-a-console/", b"")
    here, there = storage.files_under(tmp_path), storage.files_under(place("gs://bucket/folder"))
    assert {name: one.size for name, one in here.items()} == {name: one.size for name, one in there.items()}
    assert list(here) == list(there) == ["a.txt", "deep/b.txt", "deep/er/c.txt"]
    assert np.unique([one.version for one in there.values()]).size == 3


def test_the_check_before_a_long_job_tries_the_bucket(bucket, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "tpu_setup")
    preflight = importlib.import_module("preflight")
    files, shared = preflight.check_files("gs://bucket/preflight"), preflight.check_shared("gs://bucket/preflight")
    assert files.ok and re.fullmatch(r"gs://bucket/preflight: \d+ MB/s written, \d+ MB/s read", files.text)
    assert shared.ok and shared.text == "gs://bucket/preflight: seen by this host"
    assert bucket.names("bucket") == []
    assert "gs://nowhere/preflight: no such bucket" in preflight.check_files("gs://nowhere/preflight").text
