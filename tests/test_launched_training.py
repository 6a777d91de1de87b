"""Training in several processes under the launcher: one folder, one way to stop, one clear word where they differ."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_sittings import READY, environment, make_inputs

from moonseg_jax.run_directory import read_metrics

SCRIPT = str(Path(__file__).parent / "training_sittings.py")
pytestmark = pytest.mark.slow  # it compiles programs in several processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launched")
    make_inputs(folder, images=8)
    return folder


def caching(folder: Path) -> dict[str, str]:
    name = "JAX_COMPILATION_CACHE_DIR"
    return {name: os.environ.get(name, str(folder / "compiled"))}


def launch(folder: Path, *words: str, grace: float = 20, devices: int = 1) -> subprocess.Popen[str]:
    how = ["--processes", "2", "--devices-per-process", str(devices), "--grace", str(grace)]
    return subprocess.Popen(
        [sys.executable, "-m", "moonseg_jax.cli", "launch", *how, "--", *words],
        cwd=folder, env=environment(**caching(folder)), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], seconds: float = 900) -> tuple[int, str]:
    try:
        out, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out + errors


def alone(folder: Path, *words: str, devices: int = 1) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *words], cwd=folder, env=environment(devices=devices, **caching(folder)),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def assert_close(found: Path, expected: Path, atol: float = 1e-6) -> None:
    """Averaged parameters and logged figures, as far as other sums of the same numbers differ.

    The biases of attention's keys are left out: softmax does not see them, their gradient is 0, and what rounding
    leaves of it Adam makes steps of.
    """
    one, other = (load_file(next((run / "last").glob("*.safetensors"))) for run in (found, expected))
    assert one.keys() == other.keys()
    for name, value in other.items():
        if name.endswith("key/bias"):
            continue
        close = np.abs(one[name] - value) <= atol
        if name == "vision/blocks/qkv/bias":
            queries, _, values = np.split(close, 3, axis=-1)
            close = np.concatenate([queries, values])
        assert close.all(), name
    logged, wanted = ([row for row in read_metrics(run / "metrics.jsonl")] for run in (found, expected))
    assert [row["step"] for row in logged] == [row["step"] for row in wanted]
    assert [row["step"] for row in wanted if "skipped_steps" in row] == [3, 4]
    for row, like in zip(logged, wanted, strict=True):
        # Engines of other devices have other slots to fill.
        for name in (name for name in like if "seconds" not in name and name != "useful_slots"):
            if like[name] is None:
                assert row[name] is None, name
                continue
            np.testing.assert_allclose(row[name], like[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def whole(folder):
    """Never stopped, on eight devices."""
    alone(folder, "whole", "sft", "--mesh.fsdp", "4", devices=8)
    return folder / "whole-sft"


def test_a_run_of_eight_devices_goes_on_with_four(folder, whole):
    alone(folder, "eight", "sft", "--mesh.fsdp", "4", "--terminate-after", "3", devices=8)
    assert [path.name for path in (folder / "eight-sft" / "checkpoints").iterdir() if path.name != "2"] == ["3"]
    alone(folder, "eight", "sft", "--mesh.fsdp", "2", "--resume", devices=4)
    assert_close(folder / "eight-sft", whole)


def test_two_processes_stop_together_though_one_was_asked_and_one_process_goes_on(folder, whole):
    code, told = finish(launch(folder, sys.executable, SCRIPT, "two", "sft", "--terminate-after", "3"))
    assert code == 0, told[-3000:]
    stopped = [line for line in told.splitlines() if "stopped at step" in line]
    assert stopped == ["[0] sft: stopped at step 3; go on with --resume --out two-sft"]
    alone(folder, "two", "sft", "--resume")
    assert_close(folder / "two-sft", whole)


def test_a_refiner_of_two_processes_with_four_devices_goes_on_in_one_with_two(folder):
    """The stage `rl` is moved so in `placement/test_placements.py`."""
    alone(folder, "unmoved", "refiner", "--mesh.fsdp", "4", devices=4)
    words = ("moved", "refiner", "--mesh.fsdp", "4", "--terminate-after", "3")
    code, told = finish(launch(folder, sys.executable, SCRIPT, *words, devices=2))
    assert code == 0, told[-3000:]
    alone(folder, "moved", "refiner", "--mesh.fsdp", "2", "--resume", devices=2)
    # Adam divides by the root of a gradient that is nearly 0 at some entries, and its rounding with it.
    assert_close(folder / "moved-refiner", folder / "unmoved-refiner", atol=2e-6)


def test_processes_with_different_configs_end_all_with_one_clear_line(folder):
    since = time.monotonic()
    differing = f'exec {sys.executable} {SCRIPT} differing sft --seed "$JAX_PROCESS_ID"'
    code, told = finish(launch(folder, "sh", "-c", differing))
    errors = sorted(line for line in told.splitlines() if "moonseg: error" in line and not line.startswith("moonseg"))
    line = (
        "moonseg: error: the processes were not started alike: the config of process 1 is not that of process 0: "
        "seed is 1, not 0; give all the same command, file and packages"
    )
    assert errors == [f"[{index}] {line}" for index in range(2)]
    assert code == 2
    assert time.monotonic() - since < 60
    assert not (folder / "differing-sft").exists()


def test_a_folder_that_cannot_be_used_ends_all_and_not_the_first_alone(folder):
    (folder / "taken-sft").mkdir(exist_ok=True)
    (folder / "taken-sft" / "config.json").write_text("{}")
    code, told = finish(launch(folder, sys.executable, SCRIPT, "taken", "sft"))
    assert code == 2
    assert "[0] moonseg: error: taken-sft holds another run already" in told
    assert "[1] moonseg: error: process 0: taken-sft holds another run already" in told


def test_a_killed_process_ends_the_run_in_time_and_is_named(folder):
    process = launch(folder, sys.executable, SCRIPT, "lost", "sft", "--wait-after", "3", grace=3)
    line = ""
    while READY not in line:
        line = process.stdout.readline()
        assert line, process.stderr.read()[-3000:]
    workers = children_of(process.pid)
    assert len(workers) == 2
    os.kill(max(workers), signal.SIGKILL)
    since = time.monotonic()
    code, told = finish(process, seconds=30)
    assert time.monotonic() - since < 15
    assert code == 128 + signal.SIGKILL
    assert "moonseg launch: process 1 was killed by SIGKILL; ending the others within 3 s" in told
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert [path.name for path in (folder / "lost-sft" / "checkpoints").iterdir()] == ["2"]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_half_a_description_of_the_others_is_refused(folder):
    done = subprocess.run(
        [sys.executable, SCRIPT, "half", "sft"], cwd=folder, env=environment(JAX_NUM_PROCESSES="2"),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    told = "the environment sets JAX_NUM_PROCESSES, but not JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID: set all three"
    assert told in done.stderr
