"""Real trials: killed in the middle, gone on with, failed for a reason, and compared."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moonseg_jax.run_directory import read_json, read_metrics

TESTS = Path(__file__).parent.parent
SWEEP = """
def sweep():
    broken = Trial(arm="broken", config=sft(data="gone"))
    return Sweep(trials=(Trial(arm="plain", config=sft()), broken), baseline="plain")
"""
RUN = """
import sys
from moonseg_jax import cli
sys.exit(cli.main(["sweep", "mine.py", "--out", "out", *sys.argv[1:]]))
"""
KILLED = """
import os, signal
from moonseg_jax.checkpoint import Checkpoints

save = Checkpoints.save

def save_and_die(self, step, *rest):
    save(self, step, *rest)
    os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = save_and_die
"""
"""Dies right after its first checkpoint, of step 2 of 4, without a chance to tidy up."""


def python(program, *words):
    """Runs a program in a process of its own, compiled without optimisation, which is four times faster."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    flags = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    environment = {**os.environ, "PYTHONPATH": path, "XLA_FLAGS": flags}
    return subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, timeout=600, check=False, capture_output=True,
        text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_sweep_goes_on_from_its_checkpoint_past_a_failing_trial(moonseg, write_config, workplace):
    write_config(SWEEP)
    assert python(KILLED + RUN).returncode == -9
    trial = workplace / "out" / "trials" / "plain-seed0"
    before = [row["step"] for row in read_metrics(trial / "run" / "metrics.jsonl")]
    assert before == [1, 2] and not (trial / "result.json").exists()

    code, _, error = moonseg("mine.py", "--out", "out")
    assert code == 2 and "plain-seed0 were begun and not finished" in error
    first_row = (trial / "run" / "metrics.jsonl").read_text().splitlines()[0]
    resumed = python(RUN, "--resume")
    assert resumed.returncode == 2
    assert "1 of 2 trials failed, the first with UserError: gone holds no data set" in resumed.stderr
    rows = read_metrics(trial / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "seconds_per_step" in row] == [1, 2, 3, 4]
    assert (trial / "run" / "metrics.jsonl").read_text().splitlines()[0] == first_row

    result = read_json(trial / "result.json", missing="")
    assert result["figures"]["n"] == 6 and result["start"]["n"] == 6  # Two phrases in each of three scenes.
    assert result["figures"]["tokens"] != result["start"]["tokens"] or result["figures"] != result["start"]
    assert 0 < result["train_seconds"] < result["wall_seconds"]
    code, out, _ = moonseg("--summarise", "out")
    assert code == 0 and "broken-seed0" in out and "gone holds no data set" in out
    assert (workplace / "out" / "summary.html").is_file()
