"""A run whose data, first weights and folder lie in a bucket is the run in folders of this machine, killed or not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_sittings import READY, environment, make_inputs

pytest.importorskip("gcsfs", reason="buckets are read with gcsfs: pip install 'moonseg-jax[gcs]'")
from fake_bucket import FakeBuckets

from moonseg_jax import cli
from moonseg_jax.evaluation.weights_digest import weights_digest
from moonseg_jax.weights import POLICY

SCRIPT = str(Path(__file__).parent / "training_sittings.py")
FAR = ("--data", "gs://bucket/data", "--start-from", "gs://bucket/start")
pytestmark = pytest.mark.slow  # it compiles the programs of a stage


@pytest.fixture(scope="module")
def bucket():
    with FakeBuckets("bucket") as fake:
        yield fake


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bucket):
    """In the bucket data, first weights, and `killed-sft`, killed in its fourth step."""
    folder = tmp_path_factory.mktemp("bucket-runs")
    make_inputs(folder, images=2)
    for file in [*(folder / "data").rglob("*"), *(folder / "start").rglob("*")]:
        if file.is_file():
            bucket.write("bucket", str(file.relative_to(folder)), file.read_bytes())
    killed = start(folder, bucket, "gs://bucket/killed", "sft", "--wait-after", "3", *FAR)
    try:
        assert READY in killed.stdout.readline(), killed.stderr.read()[-3000:]
    finally:
        killed.kill()
        killed.communicate()
    return folder


def start(folder: Path, bucket: FakeBuckets, *words: str) -> subprocess.Popen[str]:
    more = {"MOONSEG_CACHE": str(folder / "cache"), **bucket.environment()}
    more.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled")))
    return subprocess.Popen(
        [sys.executable, SCRIPT, *words], cwd=folder, env=environment(**more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def assert_ends_well(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    return out


def rows(text: str) -> list[dict[str, float]]:
    """Metrics without what the clock says."""
    lines = [json.loads(line) for line in text.splitlines()]
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in lines]


@pytest.fixture(scope="module")
def trained(folder, bucket):
    """Gone on with and finished; beside it `whole-sft`, which was never stopped, on this machine."""
    assert bucket.names("bucket", "killed-sft/checkpoints/2/commit_success.txt") != []
    assert not any(name.startswith("killed-sft/checkpoints/4/") for name in bucket.names("bucket"))
    assert [row["step"] for row in rows(content(bucket, "killed-sft/metrics.jsonl").decode())] == [3]
    # Of another save, killed before Orbax's mark of a finished one.
    for name in bucket.names("bucket", "killed-sft/checkpoints/2/"):
        if name != "killed-sft/checkpoints/2/commit_success.txt":
            bucket.write("bucket", name.replace("checkpoints/2", "checkpoints/3"), content(bucket, name))
    # The other one, on this machine, is never stopped.
    assert_ends_well(start(folder, bucket, "gs://bucket/killed,whole", "sft", "--resume-or-begin", *FAR))
    return folder


def test_killed_and_gone_on_with_it_is_the_run_on_this_machine_to_the_last_bit(trained, bucket):
    expected = (trained / "whole-sft" / "metrics.jsonl").read_text()
    assert len(rows(expected)) == 3
    assert rows(content(bucket, "killed-sft/metrics.jsonl").decode()) == rows(expected)
    for name in ("last/policy.safetensors", "last/model.json", "best/policy.safetensors"):
        assert content(bucket, f"killed-sft/{name}") == (trained / "whole-sft" / name).read_bytes(), name
    kept = {f"killed-sft/gallery/{file.name}": file.read_bytes() for file in (trained / "whole-sft/gallery").iterdir()}
    assert {name: content(bucket, name) for name in bucket.names("bucket", "killed-sft/gallery/")} == kept
    found = {name.split("/")[2] for name in bucket.names("bucket", "killed-sft/checkpoints/")}
    assert found == {".folder", "2", "4"}
    assert not any(path.name.startswith("gs") for path in trained.iterdir())


def content(bucket: FakeBuckets, name: str) -> bytes:
    return bucket.objects["bucket", name].content


def test_what_was_trained_is_judged_exported_and_reported_there(trained, bucket, tmp_path, monkeypatch, capsys):
    for name, value in {"MOONSEG_CACHE": str(trained / "cache"), **bucket.environment()}.items():
        monkeypatch.setenv(name, value)
    words = ["--stage", "coarse", "--limit", "1", "--phrases", "1", "--batch", "1"]
    there = ["--checkpoint", "gs://bucket/killed-sft/best", "--dataset", "gs://bucket/data", "--out", "gs://bucket/e"]
    assert cli.main(["eval", *words, *there]) == 0
    (sample,) = rows(content(bucket, "e/samples.jsonl").decode())
    figures = json.loads(content(bucket, "e/metrics.json"))
    assert figures["coarse"]["n"] == 1 and figures["coarse"]["miou"] == sample["coarse_iou"]
    assert figures["config"]["checkpoint"]["digest"] == weights_digest(trained / "whole-sft" / "best", POLICY)
    assert "**1 phrases on 1 images of shapes, split val**" in content(bucket, "e/table.md").decode()

    for best, out in (("gs://bucket/killed-sft/best", "gs://bucket/p"), (trained / "whole-sft/best", tmp_path / "p")):
        assert cli.main(["export", "--checkpoint", str(best), "--format", "hf", "--out", str(out)]) == 0
    files = {file.name: file.read_bytes() for file in (tmp_path / "p").iterdir()}
    assert {name.removeprefix("p/"): content(bucket, name) for name in bucket.names("bucket", "p/")} == files

    assert cli.main(["report", "gs://bucket/killed-sft"]) == 0
    assert "wrote gs://bucket/killed-sft/report.html" in capsys.readouterr().out
    assert b'class="scene' in content(bucket, "killed-sft/report.html")
    assert b"eval_miou" in content(bucket, "killed-sft/report.html")
