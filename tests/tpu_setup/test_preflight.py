"""The check before a long job passes where all is well, and names what is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKS = ("devices", "versions", "collectives", "files", "shared", "memory", "clock")


def start(devices: int, *words: object) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, str(ROOT / "tpu_setup" / "preflight.py"), "--mib", "1", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


SRUN = f"""#!/bin/bash
# One process for each of two nodes, with the variables by which JAX knows a step of SLURM.
shift
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_LOCALID=0 JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=3
python() {{ {sys.executable} "$@" --mib 1; }}
[[ $1 == python ]] || exit 9
SLURM_PROCID=0 "$@" > "$PRINTED.0" & first=$!
SLURM_PROCID=1 "$@" > "$PRINTED.1" & second=$!
wait $first && wait $second
"""


def preflight_job(tmp_path: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """slurm_preflight.sbatch on two nodes of three devices, as far as JAX and the file can tell."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{srun.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "2",
        "OUT": str(tmp_path / "shared"), "PRINTED": str(tmp_path / "printed"), **given,
    }  # fmt: skip
    file = ROOT / "tpu_setup" / "slurm_preflight.sbatch"
    return subprocess.run(["bash", file], env=environment, capture_output=True, text=True, timeout=100)


def test_two_nodes_of_a_slurm_job_find_each_other_and_pass_together(tmp_path):
    (tmp_path / "shared").mkdir()
    job = preflight_job(tmp_path, SLURM_GPUS_ON_NODE="3")
    printed = [(tmp_path / f"printed.{host}").read_text() for host in range(2)]
    assert job.returncode == 0, job.stderr + printed[0] + printed[1]
    lines = [line for line in printed[0].splitlines() if line.startswith("host ")]
    assert [line.split(": ")[1:3] for line in lines] == [[check, "ok"] for check in CHECKS]
    assert "6 of cpu on 2 hosts, [3, 3] each" in lines[0]
    assert "host 1" not in printed[1]
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_slurm_job_without_gpus_is_refused(tmp_path):
    job = preflight_job(tmp_path, SLURM_GPUS_ON_NODE="")
    assert job.returncode == 2
    assert "SLURM gave no GPUs (SLURM_GPUS_ON_NODE): ask with --gpus-per-node" in job.stderr


@pytest.mark.parametrize(("gpus", "ids"), [("1", "0"), ("4", "0,1,2,3")])
def test_a_process_takes_all_gpus_of_its_node(gpus, ids):
    program = f'source {ROOT}/tpu_setup/gpus_of_node.sh; export_gpus_of_node; bash -c "echo \\$JAX_LOCAL_DEVICE_IDS"'
    environment = os.environ | {"SLURM_GPUS_ON_NODE": gpus}
    assert subprocess.run(["bash", "-c", program], env=environment, capture_output=True, text=True).stdout == f"{ids}\n"


def test_every_failure_has_its_line_and_the_code_is_1(tmp_path):
    (tmp_path / "file").write_text("")
    host = start(
        2, "--devices", 8, "--run", tmp_path / "file", "--least-bandwidth", 1e9, "--least-memory", 1e9,
        "--most-skew", -1,
    )  # fmt: skip
    printed, _ = host.communicate(timeout=100)
    assert host.returncode == 1
    failed = [line.split(": ")[1] for line in printed.splitlines() if ": FAILED: " in line]
    assert failed == [check for check in CHECKS if check != "versions"]
    assert "--devices says 8" in printed
