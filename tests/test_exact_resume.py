"""A run that was killed and gone on with is the run that was not, to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from training_sittings import READY, environment, make_inputs

SCRIPT = str(Path(__file__).parent / "training_sittings.py")
STAGES = ("sft", "rl", "refiner")
pytestmark = pytest.mark.slow  # it compiles all programs of all stages


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    more = {} if "JAX_COMPILATION_CACHE_DIR" in os.environ else {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    return subprocess.Popen(
        [sys.executable, SCRIPT, *words], cwd=folder, env=environment(**more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`whole-STAGE`: never stopped; `killed-STAGE`: killed in its fourth step, gone on with from its second."""
    folder = tmp_path_factory.mktemp("resume")
    make_inputs(folder, images=2)
    finish(start(folder, "whole", *STAGES))
    killed = [start(folder, "killed", stage, "--wait-after", "3") for stage in STAGES]
    try:
        for process in killed:
            assert READY in process.stdout.readline(), process.stderr.read()[-3000:]
    finally:
        for process in killed:
            process.kill()
            process.communicate()
    for stage in STAGES:
        run = folder / f"killed-{stage}"
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["2"]
        assert [row["step"] for row in rows(run) if "skipped_steps" in row] == [3]
    finish(start(folder, "killed", *STAGES, "--resume"))
    return folder


def leaves(run: Path) -> dict[str, np.ndarray]:
    """Everything in the checkpoint at the end of a run, by its path."""
    with ocp.training.Checkpointer(run / "checkpoints") as checkpoints:
        stored = checkpoints.load_checkpointables(4, {"state": None, "rest": None})
    paths = jax.tree_util.tree_leaves_with_path({name: stored[name] for name in ("state", "rest")})
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in paths}


def rows(run: Path) -> list[dict[str, float]]:
    """Metrics without what the clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in lines]


def assert_same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name, strict=True)


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_optimizer_loader_and_buffers_are_the_same_to_the_last_bit(folder, stage):
    expected = leaves(folder / f"whole-{stage}")
    kinds = ["state/params/", "state/averaged/", "state/optimizer/", "rest/loader/"]
    for kind in kinds + ["rest/extra/rows/"] * (stage == "rl"):
        assert any(name.startswith(kind) for name in expected), kind
    assert_same_bits(leaves(folder / f"killed-{stage}"), expected)


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_are_the_same_to_the_last_digit_also_those_that_reach_over_the_checkpoint(folder, stage):
    expected = rows(folder / f"whole-{stage}")
    assert [row["step"] for row in expected if "skipped_steps" in row] == [3, 4]
    assert [row["step"] for row in expected if "eval_miou" in row] == [0] * (stage == "rl") + [4]
    assert rows(folder / f"killed-{stage}") == expected


@pytest.mark.parametrize("file", ["pairs.npz", "rollouts.npz", "groups.npz"])
def test_pairs_samples_and_groups_are_the_same_to_the_last_bit(folder, file):
    found, expected = (dict(np.load(folder / f"{name}-rl" / file)) for name in ("killed", "whole"))
    assert sum(array.size for array in expected.values()) > 100
    assert_same_bits(found, expected)


@pytest.mark.parametrize("stage", STAGES)
def test_exported_weights_and_kept_scenes_are_the_same_files(folder, stage):
    for kept in ("best", "last", "gallery"):
        found, expected = (
            {file.name: file.read_bytes() for file in (folder / f"{name}-{stage}" / kept).iterdir()}
            for name in ("killed", "whole")
        )
        assert found == expected
