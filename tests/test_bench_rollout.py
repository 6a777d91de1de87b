"""The rollout benchmark's workload and figures; speeds are not judged here."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_models import micro, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch
from moonseg_jax.bench.rollout import slot_use as slot_use_module
from moonseg_jax.bench.rollout.bandwidth import weights_read
from moonseg_jax.bench.rollout.gap import log_prob_gap
from moonseg_jax.bench.rollout.prefix import prefix_saving
from moonseg_jax.bench.rollout.scoring import scoring_share
from moonseg_jax.bench.rollout.slot_use import slot_use
from moonseg_jax.bench.rollout.workload import Workload, make_workload, path_lengths, random_bfloat16
from moonseg_jax.commands_bench import BenchRollout
from moonseg_jax.errors import UserError
from moonseg_jax.rollout.settings import Sampling

pytestmark = pytest.mark.slow

BUDGET = micro().paths.max_new_tokens


def workload(images: int, group: int) -> Workload:
    policy = micro_policy()
    examples = tuple(scene.examples[0] for scene in scenes(images))
    batch = prompt_batch([[example] for example in examples], policy.layout(1))
    budgets = path_lengths(images * group).clip(12, BUDGET)
    return Workload(
        policy=policy, params=micro_params(), examples=examples, batch=batch, group=group, budgets=budgets
    )  # fmt: skip


def test_lengths_have_the_quantiles_of_paths():
    lengths = path_lengths(4096)
    np.testing.assert_allclose(np.percentile(lengths, [50, 90, 99]), [60, 140, 260], atol=1)
    assert (lengths.min(), lengths.max()) == (15, 299)
    assert not np.array_equal(lengths, np.sort(lengths))


def test_paths_of_the_workload_are_as_long_as_their_budgets():
    work = make_workload("tiny", 2, 8)
    assert work.policy.config.paths.max_new_tokens == 300
    np.testing.assert_array_equal(work.budgets, path_lengths(16))
    natural = make_workload("tiny", 2, 8, natural=True)
    letter = work.policy.vocabulary.command_ids["Z"]
    gap = natural.params["text"]["head"]["bias"][letter] - work.params["text"]["head"]["bias"][letter]
    assert abs(gap - 1e4) < 1e-2 and (natural.budgets == 44).all()
    assert work.first(1).batch.crops.shape[0] == 1 and len(work.first(1).budgets) == 8


@pytest.mark.usefixtures("quick_compiling")
def test_slots_are_used_as_list_scheduling_says(monkeypatch):
    monkeypatch.setattr(slot_use_module, "make_workload", lambda _, images, group: workload(images, group))
    monkeypatch.setattr(slot_use_module, "QUEUE", 4)
    figures = slot_use(8)
    lengths = np.sort(path_lengths(32).clip(12, BUDGET).reshape(4, 8), axis=1)
    assert figures["useful_in_fixed_batches"] == pytest.approx(lengths.sum() / (8 * lengths[:, -1].sum()), abs=1e-4)
    free_at = np.zeros(8, int)
    for length in path_lengths(32).clip(12, BUDGET):
        free_at[free_at.argmin()] += length
    # Paths end by themselves here, a few tokens before their budget.
    assert figures["useful_with_refill"] == pytest.approx(lengths.sum() / (8 * free_at.max()), abs=0.1)


@pytest.mark.usefixtures("quick_compiling")
def test_gap_prefix_and_scoring_report_what_they_promise():
    work = workload(2, 8)
    gaps = log_prob_gap(work, Sampling(group=8, slots=5))
    single, half = gaps["float32, replayed experts"], gaps["bfloat16, replayed experts"]
    assert single["largest"] <= 1e-5 and single["share_beyond_1e-5"] == 0
    assert 1e-4 < half["mean"] < 0.05 and 0 <= half["mismatch_kl"] < 1e-3
    rows = prefix_saving(work, 1, 1, groups=(4,))
    assert [row["group"] for row in rows] == [4]
    per_token = 2 * 2 * 32 * 4
    assert rows[0]["kv_bytes_per_further_sample"] == per_token * BUDGET
    assert rows[0]["kv_bytes_with_own_prefix"] == per_token * (BUDGET + 1 + 16 + 16)
    assert 0 < scoring_share(work, Sampling(group=8), 1)["share"] < 1


def test_a_step_reads_the_experts_that_its_tokens_reach():
    work = workload(1, 8)
    expert = 32 * 2 * 16 + 16 * 32
    few, more = weights_read(work, 1), weights_read(work, 2)
    # Two of four experts for one token; half of the others for the second.
    assert more - few == pytest.approx(4 * expert * (4 * (1 - 0.25) - 2), abs=1)


def test_random_weights_are_bfloat16_of_the_right_shapes():
    shapes = micro_policy().shapes()
    drawn = random_bfloat16(shapes)
    jax.tree.map(lambda leaf, like: np.testing.assert_equal(leaf.shape, like.shape), drawn, shapes)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(drawn)} == {"bfloat16"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"images": 2}, "--images must be 4 or more"), ({"slots": 12}, "multiple of 8"), ({"slots": 1024}, "at most 8 x")],
)
def test_counts_out_of_range_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(BenchRollout(), **wrong).run()
