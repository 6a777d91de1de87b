"""Traces of a run's steps."""

import gzip
import json

import jax
import jax.numpy as jnp

from moonseg_jax.step_trace import StepTrace


@jax.jit
def program_of_the_test(x):
    return (x @ x).sum()


def run_steps(folder, steps, *, last, first=0):
    notes, results = [], []
    trace = StepTrace(folder, steps, first, last, notes.append)
    for step in range(first, last):
        trace.before(step, results)
        results.append(program_of_the_test(jnp.ones((64, 64))))
    trace.close(results)
    return notes


def names_in(folder):
    (file,) = folder.rglob("perfetto_trace.json.gz")
    return [event.get("name", "") for event in json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]]


def test_the_steps_asked_for_are_in_the_trace_by_the_names_of_their_programs(tmp_path):
    (note,) = run_steps(tmp_path, 3, last=8)
    assert f"trace of steps 3 to 5 in {tmp_path / 'profile'}: open perfetto_trace.json.gz" in note
    ran = [name for name in names_in(tmp_path / "profile") if "program_of_the_test" in name]
    assert len(ran) >= 3, set(names_in(tmp_path / "profile"))


def test_a_run_that_ends_before_says_so(tmp_path):
    short, note = run_steps(tmp_path / "short", 5, last=4)
    assert short == "--profile: only 2 of 5 steps can be traced before the run ends"
    assert "trace of steps 3 to 4" in note
    (none,) = run_steps(tmp_path / "none", 1, last=12, first=10)
    assert "no step is traced, because this sitting has 2" in none
    assert not (tmp_path / "none").exists()


def test_without_being_asked_nothing_is_traced(tmp_path):
    assert run_steps(tmp_path, 0, last=4) == []
    assert list(tmp_path.iterdir()) == []
