"""The training that manifests, sbatch files and README start is one that the command line takes, setting by setting."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import manifests
import pytest
import tyro

from moonseg_jax import cli, config_file
from moonseg_jax.commands import Train
from moonseg_jax.commands_sweep import Sweep
from moonseg_jax.errors import UserError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tpu_setup"
README = (FOLDER / "README.md").read_text().replace("\\\n", " ")
SCRIPT = "tpu_setup/train_or_resume.sh"
XPK = re.findall(r'^xpk workload create .* --command "(.*)"$', README, flags=re.M)
SBATCH = re.findall(r"^((?:[A-Z]+=\S+ )+)sbatch (?:--\S+ )*(tpu_setup/\w+\.sbatch)(.*)$", README, flags=re.M)


def started(tmp_path: Path, words: list[str], **given: str) -> list[str]:
    """The words of `moonseg` in the end, with stand-ins for it and for srun."""
    for name, body in {"moonseg": 'printf "%s\\n" "$@"', "srun": '[[ $1 != --* ]] || shift; exec "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_GPUS_ON_NODE": "8", "SLURM_ARRAY_TASK_ID": "1"}
    environment = os.environ | slurm | given | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def parsed(words: list[str]) -> Train:
    """As the command line reads them, the settings of the config too."""
    assert words[0] == "train"
    train, rest = tyro.cli(Train, args=words[1:], prog="moonseg train", **cli.PARSING, return_unknown_args=True)
    config = config_file.load_config(ROOT / train.config, train.stage)
    changed = config_file.with_overrides(config, rest, prog="moonseg train")
    assert changed.images_per_batch % 16 == 0, "a batch must be split evenly over the devices"
    return train


def of_readme() -> list[list[str]]:
    """Every call of train_or_resume.sh that the README shows."""
    lines = re.findall(rf"{SCRIPT} (?:sft|rl|refiner) [^\n\"]*", README)
    return [shlex.split(line) for line in lines]


def test_the_manifest_trains_on_all_hosts_into_a_bucket_and_goes_on(tmp_path):
    command = manifests.container(manifests.load("jobset_train.yaml"))["command"]
    train = parsed(started(tmp_path, command))
    assert (train.stage, train.distributed, train.resume_or_begin, train.stop_code) == ("rl", "auto", True, 130)
    assert str(train.out) == "gs://BUCKET/runs/first"


def test_a_misspelt_setting_in_a_manifest_is_found(tmp_path, capsys):
    command = manifests.container(manifests.load("jobset_train.yaml"))["command"]
    with pytest.raises((SystemExit, UserError)):
        parsed(started(tmp_path, [*command, "--images-per-batches=8"]))


@pytest.mark.parametrize("words", of_readme(), ids=lambda words: words[1])
def test_the_readme_trains_on_all_hosts_into_a_bucket_and_goes_on(tmp_path, words):
    train = parsed(started(tmp_path, words))
    assert (train.distributed, train.resume_or_begin, train.stop_code) == ("auto", True, 130)
    assert str(train.out).startswith("$BUCKET/") or str(train.out).startswith("gs://BUCKET/")


@pytest.mark.parametrize(
    ("given", "file", "settings"), [line for line in SBATCH if "preflight" not in line[1]], ids=lambda value: value[:24]
)
def test_sbatch_files_start_what_the_command_line_takes(tmp_path, given, file, settings):
    variables = dict(word.split("=", 1) for word in given.split())
    words = started(tmp_path, ["bash", file, *shlex.split(settings)], **variables)
    if words[0] == "sweep":
        sweep, rest = tyro.cli(Sweep, args=words[1:], prog="moonseg sweep", **cli.PARSING, return_unknown_args=True)
        assert (str(sweep.trial), sweep.resume, rest) == ("1/10", True, [])
        return
    train = parsed(words)
    assert (train.distributed, train.resume_or_begin, str(train.out)) == ("auto", True, variables["OUT"])


def test_the_commands_are_found():
    assert len(of_readme()) >= 2
    assert {file for _, file, _ in SBATCH} == {f"tpu_setup/{path.name}" for path in FOLDER.glob("*.sbatch")}
    check, train = XPK
    assert "preflight.py --distributed --devices 16 --run gs://BUCKET/" in check
    assert SCRIPT in train
