"""The advantages of the page are those that the learner learned from."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.errors import UserError
from moonseg_jax.learner.credit import credit
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.report.kept_groups import advantages, groups_of_run
from moonseg_jax.rollout.group_record import GROUPS_FILE, GroupRecord, Payment
from moonseg_jax.rollout.stored import StoredRollouts
from moonseg_jax.types import FINISH_BUDGET, FINISH_CLOSED, INJECTED, SAMPLED, Rollouts, Scored

BUDGET = 40
CONFIG = {"loss": dataclasses.asdict(PolicyLossConfig()), "model": {"paths": {"max_new_tokens": BUDGET}}}
IOU = np.array([[0.2, 0.8, 0.5], [0.4, 0.4, 0.4]], np.float32)
SQUARE = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])


def payment(**changes):
    settings = dict(
        iou=IOU, reward=IOU - 0.1, lengths=np.array([[9, 8, 7], [6, 40, 5]]), source=np.full((2, 3), SAMPLED)
    )
    return Payment(**{**settings, **changes})


def record(paid, side=8):
    """Two groups of three squares each; the truth is the left half."""
    edges = np.stack([SQUARE, np.roll(SQUARE, -1, axis=0)], axis=1)
    truth = np.zeros((2, side, side), bool)
    truth[:, :, : side // 2] = True
    finish = np.where(paid.lengths[:, :3] == BUDGET, FINISH_BUDGET, FINISH_CLOSED)
    samples = StoredRollouts(
        steps=np.full(2, 11), example_ids=np.arange(2), reference_lengths=np.ones(2, int), truth=truth,
        lengths=paid.lengths[:, :3], finish=finish, box=np.zeros((2, 3, 4)),
        points=np.broadcast_to(edges, (2, 3, 4, 2, 2)).copy(), valid=np.ones((2, 3, 4), bool),
        subpath=np.zeros((2, 3, 4), int),
    )  # fmt: skip
    return GroupRecord(
        samples=samples, photos=np.zeros((2, side, side, 3), np.uint8), phrases=("a", "b"), payment=paid
    )  # fmt: skip


def shown(tmp_path, paid, **config):
    return groups_of_run("RL", record(paid).save(tmp_path / GROUPS_FILE), {**CONFIG, **config})


def test_samples_stand_by_advantage_against_the_mean_of_the_others(tmp_path):
    first, second = shown(tmp_path, payment()).groups
    np.testing.assert_allclose([one.advantage for one in first.samples], [0.45, 0.0, -0.45], atol=1e-6)
    np.testing.assert_allclose([one.iou for one in first.samples], [0.8, 0.5, 0.2])
    np.testing.assert_allclose([one.reward for one in first.samples], [0.7, 0.4, 0.1], rtol=1e-6)
    assert [one.tokens for one in first.samples] == [8, 7, 9]
    assert (first.flat, second.flat) == (False, True) and {one.advantage for one in second.samples} == {0.0}
    assert sorted(one.remark for one in second.samples) == ["", "", "out of budget"]


def test_the_note_says_which_groups_and_how_many_were_filtered_out(tmp_path):
    note = shown(tmp_path, payment()).note
    assert note.startswith("The first 2 of the 2 groups of step 12, by advantage; 1 of the 2 were filtered out.")
    assert "first subpath" not in note and "first subpath" in shown(tmp_path, payment(), credit="token").note


def test_what_a_sample_drew_is_drawn_again(tmp_path):
    sample = shown(tmp_path, payment()).groups[0].samples[0]
    np.testing.assert_allclose(sample.polygons[0], SQUARE)
    expected = np.zeros((8, 8), bool)
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(sample.mask, expected)


def test_a_path_put_beside_a_group_is_named_and_an_empty_one_left_out(tmp_path):
    iou = np.concatenate([IOU, [[1.0], [0.0]]], axis=1).astype(np.float32)
    source = np.tile([SAMPLED, SAMPLED, SAMPLED, INJECTED], (2, 1))
    paid = payment(iou=iou, reward=iou, source=source, lengths=np.array([[9, 8, 7, 12], [6, 40, 5, 0]]))
    first, second = shown(tmp_path, paid).groups
    assert [one.remark for one in first.samples] == ["traced target, put beside", "", "", ""]
    assert first.samples[0].advantage == pytest.approx(0.5)  # 1 less the mean of the three samples.
    assert len(second.samples) == 3 and second.flat


@pytest.mark.parametrize("scale", ["none", "group-std", "batch-std"])
def test_advantages_are_those_of_the_learner_s_own_credit(scale):
    rng = np.random.default_rng(0)
    iou = rng.random((5, 4)).astype(np.float32)
    iou[1] = 0.5
    source = np.tile([SAMPLED, SAMPLED, SAMPLED, INJECTED], (5, 1))
    lengths = rng.integers(20, BUDGET, (5, 4))
    paid = Payment(iou=iou, reward=iou**2, lengths=lengths, source=source)
    loss = PolicyLossConfig(scale=scale, overlong_weight=0.5)
    flat_rows = {name: jnp.asarray(getattr(paid, name).reshape(-1)) for name in ("iou", "reward", "lengths", "source")}
    rollouts = Rollouts(
        token_ids=jnp.zeros((20, BUDGET), jnp.int32), bins=None, log_probs=None, lengths=flat_rows["lengths"],
        budgets=jnp.full(20, BUDGET), finish=None, experts=None, source=flat_rows["source"],
    )  # fmt: skip
    batch = type("Batch", (), {"valid": jnp.ones((5, 1), bool)})
    expected = credit(loss, batch, rollouts, Scored(iou=flat_rows["iou"], reward=flat_rows["reward"]), BUDGET, None)
    found, flat = advantages(loss, paid, BUDGET)
    np.testing.assert_allclose(found.reshape(-1), expected.advantage, rtol=1e-6)
    assert flat.tolist() == [False, True, False, False, False] and np.abs(found).max() > 0.1


def test_a_config_that_does_not_say_how_samples_are_compared_is_named(tmp_path):
    file = record(payment()).save(tmp_path / GROUPS_FILE)
    with pytest.raises(UserError, match=r"groups\.npz: the run's config does not say how it compared samples"):
        groups_of_run("RL", file, {"loss": {"another": 1}})
