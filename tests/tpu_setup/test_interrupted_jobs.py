"""Jobs that are interrupted save, come back and go on."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from moonseg_jax.train_start import has_begun

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "tpu_setup" / "train_or_resume.sh"


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def with_programs(folder: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def train(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program(tmp_path / "bin", "moonseg", 'echo "$*"')
    return subprocess.run([TRAIN, *words], capture_output=True, text=True, env=with_programs(tmp_path / "bin"))


@pytest.mark.parametrize("out", [["--out=run"], ["--out", "gs://bucket/run"]], ids=str)
def test_training_itself_looks_for_the_run_and_says_when_it_was_stopped(tmp_path, out):
    words = ["sft", "--config", "c.py", *out, "--distributed", "auto"]
    assert train(tmp_path, *words).stdout == f"train {' '.join(words)} --resume-or-begin --stop-code 130\n"


def test_a_run_goes_on_from_its_checkpoint_and_one_without_is_moved_aside_and_kept(tmp_path, capsys):
    run = tmp_path / "run"
    assert not has_begun(run)
    (run / "checkpoints" / "20.orbax-checkpoint-tmp").mkdir(parents=True)
    (run / "checkpoints" / "20.orbax-checkpoint-tmp" / "part").write_text("")
    (run / "config.json").write_text("{}")
    assert not has_begun(run)
    assert not run.exists()
    (aside,) = tmp_path.glob("run.unfinished-*")
    assert (aside / "config.json").read_text() == "{}"
    assert f"{run} has no checkpoint yet: moved to {aside}" in capsys.readouterr().err
    (run / "checkpoints" / "20").mkdir(parents=True)
    (run / "checkpoints" / "20" / "part").write_text("")
    assert has_begun(run)


def test_folder_of_the_run_must_be_named(tmp_path):
    done = train(tmp_path, "sft", "--config", "c.py")
    assert done.returncode == 2
    assert "--out DIR is missing" in done.stderr


@pytest.mark.parametrize(
    ("code", "array", "requeued", "returned"),
    [(130, False, "77", 0), (130, True, "70_3", 0), (2, False, "", 2), (0, False, "", 0)],
)
def test_slurm_signal_reaches_the_step_and_requeues_what_is_unfinished(tmp_path, code, array, requeued, returned):
    step, queue, started = tmp_path / "step", tmp_path / "queue", tmp_path / "started"
    waiting = "while true; do sleep .05; done"
    program(
        tmp_path / "bin", "srun",
        f"trap 'sleep .2; echo saved > {step}; exit {code}' TERM\necho \"$*\" > {started}\n{waiting}",
    )  # fmt: skip
    program(tmp_path / "bin", "scontrol", f'echo "$2" > {queue}')
    environment = with_programs(tmp_path / "bin") | {
        "SLURM_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_GPUS_ON_NODE": "2", "STAGE": "rl",
        "CONFIG": "c.py", "OUT": "o",
    }  # fmt: skip
    if array:
        environment |= {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"}
    file = "slurm_sweep.sbatch" if array else "slurm_train.sbatch"
    job = subprocess.Popen(["bash", str(ROOT / "tpu_setup" / file)], env=environment)
    deadline = time.monotonic() + 120
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=120) == returned
    assert step.read_text() == "saved\n"
    assert (queue.read_text().strip() if queue.exists() else "") == requeued
    asked = "moonseg sweep c.py --out o --trial 3/10 --resume"
    if not array:
        asked = f"--kill-on-bad-exit=1 {TRAIN} rl --config c.py --out o --distributed auto"
    assert started.read_text().strip() == asked


def test_slurm_failure_without_signal_is_not_requeued(tmp_path):
    program(tmp_path / "bin", "srun", "exit 5")
    program(tmp_path / "bin", "scontrol", f"touch {tmp_path / 'queue'}")
    environment = with_programs(tmp_path / "bin") | {
        "SLURM_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_GPUS_ON_NODE": "2", "STAGE": "rl",
        "CONFIG": "c.py", "OUT": "o",
    }  # fmt: skip
    assert subprocess.run(["bash", ROOT / "tpu_setup" / "slurm_train.sbatch"], env=environment).returncode == 5
    assert not (tmp_path / "queue").exists()
