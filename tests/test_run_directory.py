import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import RunDirectory, read_metrics


def lines(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_create_makes_the_folder_and_writes_the_config_down(tmp_path):
    run = RunDirectory.create(tmp_path / "a" / "b", "sft", '{"steps": 3}')
    record = json.loads((tmp_path / "a" / "b" / "config.json").read_text())
    assert (record["kind"], record["config"]) == ("sft", {"steps": 3})
    assert run.checkpoints == tmp_path / "a" / "b" / "checkpoints"


def test_a_folder_that_holds_another_run_is_refused_with_the_remedies(tmp_path):
    RunDirectory.create(tmp_path / "run", "sft", "{}")
    with pytest.raises(UserError, match=r"run holds another run already: .*--out.*--resume"):
        RunDirectory.create(tmp_path / "run", "rl", "{}")


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    for path in (tmp_path / "run", tmp_path / "run" / "deeper"):
        with pytest.raises(UserError, match="a file is in the way"):
            RunDirectory.create(path, "sft", "{}")


def test_a_run_without_resume_is_not_told_to_resume(tmp_path):
    RunDirectory.create(tmp_path, "quickstart", "{}", resumable=False)
    with pytest.raises(UserError, match=r"--out$"):
        RunDirectory.create(tmp_path, "quickstart", "{}", resumable=False)


def test_a_run_that_never_took_a_step_gives_its_folder_back(tmp_path):
    run = RunDirectory.create(tmp_path, "sft", "{}")
    run.checkpoints.mkdir()
    run.withdraw()
    run = RunDirectory.create(tmp_path, "sft", "{}")
    run.append_metrics(1, {"loss": 0.5})
    run.withdraw()
    with pytest.raises(UserError, match="holds another run already"):
        RunDirectory.create(tmp_path, "sft", "{}")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that refuses folders")
def test_a_place_where_no_folder_can_be_made_is_named():
    with pytest.raises(UserError, match=r"^/proc/moonseg-run cannot be made|^no permission to make /proc/moonseg-run"):
        RunDirectory.create(Path("/proc/moonseg-run"), "sft", "{}")


def test_no_write_permission_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"no permission to write in {tmp_path}"):
        RunDirectory.create(tmp_path, "sft", "{}")


def test_metrics_are_one_object_a_line_and_what_is_not_finite_is_null(tmp_path):
    run = RunDirectory.create(tmp_path, "sft", "{}")
    run.append_metrics(1, {"loss": jnp.float32(0.5), "n": np.int64(3), "bad": float("nan")})
    run.append_metrics(2, {"loss": 0.25})
    first, second = lines(run)
    assert (first["step"], first["loss"], first["n"], first["bad"]) == (1, 0.5, 3, None)
    assert (second["step"], second["loss"]) == (2, 0.25)
    assert 0 <= first["wall_seconds"] <= second["wall_seconds"]


def test_resume_goes_on_with_metrics_and_clock(tmp_path):
    run = RunDirectory.create(tmp_path, "rl", '{"steps": 9}')
    for step in (1, 2, 3):
        run.append_metrics(step, {"loss": step})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace(f'"wall_seconds": {lines(run)[2]["wall_seconds"]}', '"wall_seconds": 500'))
    again = RunDirectory.resume(tmp_path, "rl", '{"steps": 9}')
    again.discard_metrics_after(2)
    again.append_metrics(3, {"loss": 30})
    assert [row["loss"] for row in lines(again)] == [1, 2, 30]
    assert 500 <= lines(again)[2]["wall_seconds"] < 600


def test_resume_refuses_another_kind_other_settings_and_an_empty_folder(tmp_path):
    RunDirectory.create(tmp_path, "rl", '{"model": {"width": 8}, "steps": 9}')
    with pytest.raises(UserError, match="kind 'rl', not 'sft'"):
        RunDirectory.resume(tmp_path, "sft", "{}")
    with pytest.raises(UserError, match=r"model\.width \(was 8, now 16\)"):
        RunDirectory.resume(tmp_path, "rl", '{"model": {"width": 16}, "steps": 9}')
    with pytest.raises(UserError, match="holds no run to resume"):
        RunDirectory.resume(tmp_path / "none", "rl", "{}")


def test_resume_accepts_settings_that_may_differ_and_writes_them_down(tmp_path):
    RunDirectory.create(tmp_path, "rl", '{"steps": 9}')
    RunDirectory.resume(tmp_path, "rl", '{"steps": 20}', may_differ={"steps"})
    assert json.loads((tmp_path / "config.json").read_text())["config"] == {"steps": 20}


def test_a_summary_holds_numbers_of_any_library_and_null_for_what_is_not_finite(tmp_path):
    run = RunDirectory.create(tmp_path, "rl", "{}")
    path = run.write_summary({"rl": {"miou": np.float32(0.5), "ious": [jnp.float32(1), float("inf")]}, "seed": 3})
    assert json.loads(path.read_text()) == {"rl": {"miou": 0.5, "ious": [1.0, None]}, "seed": 3}


def test_a_last_line_cut_short_is_left_out_and_a_broken_one_before_it_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"loss": 2}\n')
    with pytest.raises(UserError, match="line 2: not the metrics of a step"):
        read_metrics(path)
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2: not JSON"):
        read_metrics(path)
