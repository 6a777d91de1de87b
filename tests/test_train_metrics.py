"""What a run of reinforcement learning writes down, by name."""

import dataclasses
import json
import math

import pytest
from tiny_models import micro, micro_params

from data_pipelines.build import build_shapes
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.run_directory import RunDirectory, read_metrics
from moonseg_jax.train import run_rl
from moonseg_jax.train_config import RlConfig
from moonseg_jax.weights import POLICY, save_weights

ALWAYS = {
    "sampled_iou", "reward", "boundary_iou", "tokens", "invalid", "out_of_budget", "useful_slots", "flat_groups",
    "gradient_norm", "skipped_steps", "seconds_per_step", "reference_kl", "term_iou",
}  # fmt: skip
"""Finite whatever happens."""
WHERE_LEARNED = {"policy_loss", "entropy", "mismatch_kl", "effective_sample_size", "clip_fraction"}
pytestmark = pytest.mark.slow  # it compiles all programs of the stage
BY_SIZE = {"iou_small", "iou_medium", "iou_large"}
PARTS = {f"seconds_{part}" for part in ("data", "encode", "prefill", "decode", "score", "rollout", "learn")}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Logged rows of a run of three steps; what it wrote before the first step is left out."""
    folder = tmp_path_factory.mktemp("rl")
    build_shapes(folder / "data", train=4, val=2, seed=0, level=1, progress=False)
    config = dataclasses.replace(micro(), paths=dataclasses.replace(micro().paths, max_new_tokens=16))
    save_weights(folder / "start", POLICY, micro_params(), config)
    rl = RlConfig(
        model=config, data=str(folder / "data"), start_from=str(folder / "start"), steps=3, images_per_batch=1,
        phrases_per_image=1, group=2, optimizer=OptimizerConfig(name="sgd", learning_rate=0.05), eval_every=100,
        eval_scenes=1, checkpoint_every=100, log_every=1, loggers=(),
    )  # fmt: skip
    run = RunDirectory.create(folder / "run", "rl", json.dumps(dataclasses.asdict(rl)))
    run_rl(rl, run, False)
    return [row for row in read_metrics(folder / "run" / "metrics.jsonl") if "reward" in row]


def test_every_step_logs_the_whole_list(rows):
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        missing = (ALWAYS | WHERE_LEARNED | BY_SIZE | PARTS) - row.keys()
        assert not missing
        assert all(math.isfinite(row[name]) for name in ALWAYS)
        assert all(row[name] is None or math.isfinite(row[name]) for name in WHERE_LEARNED | BY_SIZE)


def test_a_size_without_objects_is_null_and_not_0(rows):
    for row in rows:
        assert sum(row[name] is None for name in BY_SIZE) == 2, "one prompt has one size"


def test_the_first_step_compiles_and_later_ones_split_their_time(rows):
    assert rows[0]["seconds_rollout"] is None and rows[0]["seconds_learn"] is None
    for row in rows[1:]:
        assert all(row[name] >= 0 for name in PARTS)
        inside = sum(row[f"seconds_{part}"] for part in ("encode", "prefill", "decode", "score"))
        assert inside >= row["seconds_rollout"] * (1 - 1e-6)
        assert row["seconds_data"] + row["seconds_rollout"] + row["seconds_learn"] <= row["seconds_per_step"]


def test_the_kl_to_the_start_is_none_at_the_start(rows):
    assert abs(rows[0]["reference_kl"]) < 1e-8
    assert all(row["reference_kl"] >= 0 for row in rows)
