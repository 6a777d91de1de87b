"""Sampling on other devices, or on other hosts, while the learner learns: the same run, whoever does what."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_models import micro_params, micro_policy
from training_sittings import READY, environment, make_inputs

from data_pipelines.loader import scene_batches
from data_pipelines.source import open_split
from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.config_file import load_config
from moonseg_jax.learner.optimizers import make_optimizer
from moonseg_jax.learner.state import init_state
from moonseg_jax.rl_programs import learning_programs, sampling_programs
from moonseg_jax.run_directory import read_metrics

SCRIPT = str(Path(__file__).parent.parent / "training_sittings.py")
INTERLEAVED = ("--placement.kind", "interleaved", "--placement.sampling")
APART = ("--placement.kind", "disaggregated", "--placement.sampling")
pytestmark = pytest.mark.slow  # it compiles programs in several processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("placements")
    make_inputs(folder, images=8)
    return folder


def caching(folder: Path) -> dict[str, str]:
    name = "JAX_COMPILATION_CACHE_DIR"
    return {name: os.environ.get(name, str(folder / "compiled"))}


def alone(folder: Path, *words: str, devices: int = 4) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SCRIPT, *words], cwd=folder, env=environment(devices=devices, **caching(folder)), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def together(folder: Path, processes: int, *words: str, grace: float = 20) -> subprocess.Popen[str]:
    launching = ["launch", "--processes", str(processes), "--devices-per-process", "2", "--grace", str(grace), "--"]
    return subprocess.Popen(
        [sys.executable, "-m", "moonseg_jax.cli", *launching, sys.executable, SCRIPT, *words], cwd=folder,
        env=environment(**caching(folder)), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    try:
        out, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-3000:]
    return out + errors


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    line = ""
    while READY not in line:
        line = process.stdout.readline()
        assert line, process.stderr.read()[-3000:]


@pytest.fixture(scope="module")
def whole(folder):
    """Four devices of one process, of which two sample and two learn; never stopped."""
    finish(alone(folder, "whole", "rl", *INTERLEAVED, "2"))
    return folder / "whole-rl"


def figures(run: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if "seconds" not in name}
            for row in read_metrics(run / "metrics.jsonl")]  # fmt: skip


def assert_close(run: Path, expected: Path) -> None:
    found, wanted = figures(run), figures(expected)
    assert [row["step"] for row in found] == [row["step"] for row in wanted] == [0, 3, 4, 4]
    for row, like in zip(found, wanted, strict=True):
        assert row.keys() == like.keys()
        for name, value in like.items():
            if value is None:  # Nothing was counted.
                assert row[name] is None, name
            else:
                np.testing.assert_allclose(row[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    one, other = (load_file(path / "last" / "policy.safetensors") for path in (run, expected))
    for name, value in other.items():
        if name != "vision/blocks/qkv/bias":  # Of keys: no gradient but rounding, of which Adam makes steps.
            np.testing.assert_allclose(one[name], value, atol=2e-6, err_msg=name)


def test_every_step_learns_from_the_policy_of_the_step_before(folder, whole):
    """Against a loop written out by hand, on one device, that knows nothing of placements."""
    config = load_config(folder / "tiny.py", "rl")
    policy, params = micro_policy(), micro_params()
    layout = policy.layout(1)

    def collate(scenes, seed):
        rows = [scene.examples for scene in scenes]
        return prompt_batch(rows, layout), target_batch(rows, layout)

    loader = scene_batches(
        open_split(str(folder / "data"), "train"), collate, images_per_batch=8, phrases_per_image=1, seed=config.seed
    )
    batches = [next(loader) for _ in range(4)]
    optimizer = make_optimizer(config.optimizer, 4)
    sampling, learning = sampling_programs(config, policy, None), learning_programs(config, policy, optimizer)
    state = init_state({"policy": jax.tree.map(np.asarray, params)}, optimizer)
    versions, ious, without_lag = [state.params["policy"]], [], 0.0
    with jax.default_matmul_precision("highest"):
        for step, (batch, targets) in enumerate(batches):
            behind = versions[max(step - 1, 0)]
            rollouts, scored, _, _ = sampling.rollout(behind, batch, targets.lengths, step)
            ious.append(np.asarray(scored.iou))
            without_lag = float(sampling.rollout(versions[step], batch, targets.lengths, step)[1].iou.mean())
            state = jax.tree.map(np.asarray, state)
            state, _ = learning.update(state, None, batch, targets, rollouts, scored, None)
            state = jax.tree.map(np.asarray, state)
            versions.append(state.params["policy"])
    logged = {row["step"]: row for row in figures(whole) if "sampled_iou" in row}
    assert logged[3]["sampled_iou"] == pytest.approx(np.concatenate(ious[:3]).mean(), rel=1e-5)
    # The compilers round differently, and Adam makes more of it: one of 64 samples may take another bin.
    assert logged[4]["sampled_iou"] == pytest.approx(ious[3].mean(), rel=1e-3)
    assert logged[4]["sampled_iou"] != pytest.approx(without_lag, rel=2e-2)
    exported = load_file(whole / "last" / "policy.safetensors")
    for name in ("text/routed/moe/up", "vision/position", "region/coord_decoder/kernel"):
        assert np.abs(exported[name] - _at(state.averaged["policy"], name)).max() < 2e-5, name
        assert np.abs(exported[name] - _at(params, name)).max() > 1e-4, name


def _at(tree, name):
    for part in name.split("/"):
        tree = tree[part]
    return tree


def test_killed_with_samples_in_flight_it_goes_on_to_the_last_bit(folder, whole):
    process = alone(folder, "killed", "rl", *INTERLEAVED, "2", "--wait-after", "3")
    try:
        wait_until_ready(process)
    finally:
        process.kill()
        process.communicate()
    assert [path.name for path in (folder / "killed-rl" / "checkpoints").iterdir()] == ["2"]
    finish(alone(folder, "killed", "rl", *INTERLEAVED, "2", "--resume"))
    assert json.dumps(figures(folder / "killed-rl")) == json.dumps(figures(whole))
    for kind in ("last", "best"):
        one, other = (load_file(run / kind / "policy.safetensors") for run in (folder / "killed-rl", whole))
        assert all((one[name] == other[name]).all() for name in other)
    with np.load(folder / "killed-rl" / "pairs.npz") as one, np.load(whole / "pairs.npz") as other:
        assert all((one[name] == other[name]).all() for name in other.files)


@pytest.fixture(scope="module")
def two(folder):
    """Two processes that both sample and learn, stopped by SIGTERM after three steps."""
    told = finish(together(folder, 2, "two", "rl", *INTERLEAVED, "1", "--terminate-after", "3"))
    assert "stopped at step 3" in told
    return folder / "two-rl"


def test_samples_of_another_version_are_dropped_and_counted(folder, two):
    shutil.copytree(two, folder / "turned-rl")
    told = finish(alone(folder, "turned", "rl", "--resume"))
    samples = 8 * 8
    assert f"{samples} samples in flight were dropped: they are of policy version 2, and step 3 learns from" in told
    assert figures(folder / "turned-rl")[-2]["dropped_rollouts"] == samples


def test_what_two_processes_began_goes_on_in_one(folder, whole, two):
    finish(alone(folder, "two", "rl", *INTERLEAVED, "2", "--resume"))
    assert_close(two, whole)


def test_one_process_learns_two_sample_one_dies_and_what_was_saved_goes_on_elsewhere(folder, whole):
    process = together(folder, 3, "lost", "rl", *APART, "2", "--wait-after", "3", grace=3)
    wait_until_ready(process)
    workers = sorted(
        int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    )
    os.kill(workers[1], signal.SIGKILL)
    since = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - since < 15
    assert process.returncode == 128 + signal.SIGKILL
    assert "moonseg launch: process 1 was killed by SIGKILL; ending the others within 3 s" in errors
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert [path.name for path in (folder / "lost-rl" / "checkpoints").iterdir()] == ["2"]
    row = figures(folder / "lost-rl")[1]
    assert row["sync_bytes"] == sum(leaf.nbytes for leaf in jax.tree.leaves(micro_params()))
    for name, value in figures(whole)[1].items():
        if value is not None:
            np.testing.assert_allclose(row[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    finish(alone(folder, "lost", "rl", *INTERLEAVED, "2", "--resume"))
    assert_close(folder / "lost-rl", whole)
