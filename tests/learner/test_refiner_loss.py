"""Losses of the refinement head against numbers worked with NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from tiny_models import micro_params, micro_policy

from moonseg_jax.config import RefinerHeadConfig
from moonseg_jax.learner.refiner import (
    boundary_weights,
    make_refiner_step,
    mask_losses,
    refiner_sums,
    true_iou,
)
from moonseg_jax.learner.state import init_state

OPTIONS = dict(kind="bce", best_of_masks=True, boundary_weight=2.0, dice_weight=1.0)


def square(side=12):
    truth = np.zeros((side, side), bool)
    truth[4:10, 4:10] = True
    return truth


def test_pixels_within_two_of_the_boundary_weigh_more():
    weights = np.asarray(boundary_weights(jnp.array(square())[None], 2.0))[0]
    row = [1, 1, 3, 3, 3, 3, 1, 1, 3, 3, 3, 3]
    assert weights[7].tolist() == row
    assert weights[0].tolist() == [1] * 12
    assert weights[2].tolist() == [1, 1] + [3] * 10


@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_pixel_loss_and_dice(kind):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 5)).astype(np.float32)
    truth, weights = rng.random((2, 5, 5)) < 0.4, rng.random((2, 5, 5)).astype(np.float32)
    got = mask_losses(jnp.array(logits), jnp.array(truth), jnp.array(weights), kind, 0.7)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    right = np.where(truth, p, 1 - p)
    pixel = -np.log(right) * ((1 - right) ** 2 if kind == "focal" else 1)
    mean = (pixel * weights).sum((1, 2)) / weights.sum((1, 2))
    dice = 1 - (2 * (p * truth).sum((1, 2)) + 1) / (p.sum((1, 2)) + truth.sum((1, 2)) + 1)
    np.testing.assert_allclose(got, mean + 0.7 * dice, rtol=1e-5)


def test_losses_of_an_undecided_mask_worked_by_hand():
    # Every probability is a half: BCE ln 2, focal a quarter of it; Dice 1 - (2 * 1/2 + 1) / (4 * 1/2 + 1 + 1).
    truth, even = jnp.array([[True, False], [False, False]]), jnp.ones((2, 2))
    for kind, pixel in (("bce", np.log(2)), ("focal", np.log(2) / 4)):
        np.testing.assert_allclose(mask_losses(jnp.zeros((2, 2)), truth, even, kind, 0.0), pixel, rtol=1e-6)
        np.testing.assert_allclose(mask_losses(jnp.zeros((2, 2)), truth, even, kind, 3.0), pixel + 1.5, rtol=1e-6)


def test_dice_of_a_wrong_mask_is_nearly_one_and_of_a_right_one_nothing():
    truth, logits = jnp.array([[True, False], [True, False]]), jnp.array([[50.0, -50.0], [50.0, -50.0]])
    dice = [
        mask_losses(sign * logits, truth, jnp.ones((2, 2)), "focal", 1.0)
        - mask_losses(sign * logits, truth, jnp.ones((2, 2)), "focal", 0.0)
        for sign in (1, -1)
    ]
    np.testing.assert_allclose(dice, [0.0, 1 - 1 / 5], atol=1e-5)


def test_true_iou_counts_thresholded_pixels():
    truth = jnp.array([[[True, True], [False, False]], [[False, False], [False, False]]])
    logits = jnp.array([[[3.0, -1.0], [0.1, -9.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    np.testing.assert_allclose(true_iou(logits, truth), [1 / 3, 1.0])


def candidates(truth, *names):
    """Logits [1 crop, masks]: right, wrong or empty, in the given order."""
    right = np.where(truth, 4.0, -4.0)
    masks = {"right": right, "wrong": -right, "empty": np.full(truth.shape, -4.0)}
    return jnp.array([[masks[name] for name in names]])


def test_best_of_masks_supervises_the_best_candidate():
    truth = jnp.array(square())[None]
    logits = candidates(square(), "empty", "right", "wrong")
    each = mask_losses(logits, truth[:, None], boundary_weights(truth, 2.0)[:, None], "bce", 1.0)
    best = refiner_sums(logits, jnp.zeros((1, 3)), truth, **OPTIONS)["mask"]
    mean = refiner_sums(logits, jnp.zeros((1, 3)), truth, **{**OPTIONS, "best_of_masks": False})["mask"]
    np.testing.assert_allclose(best[0], each[0, 1], rtol=1e-6)
    np.testing.assert_allclose(mean[0], each.mean(), rtol=1e-6)
    assert best[1] == mean[1] == 1


def test_scores_are_regressed_to_the_true_iou_of_every_candidate():
    truth = jnp.array(square())[None]
    logits = candidates(square(), "right", "wrong", "empty")
    sums = refiner_sums(logits, jnp.array([[0.9, 0.0, 0.2]]), truth, **OPTIONS)
    np.testing.assert_allclose(sums["iou"][0], np.mean([0.1**2, 0, 0.2**2]), rtol=1e-5)


def test_refined_iou_is_of_the_candidate_the_head_would_pick():
    truth = jnp.array(square())[None]
    logits = candidates(square(), "wrong", "right", "empty")
    for scores, iou in (([0.1, 0.9, 0.2], 1.0), ([0.9, 0.1, 0.2], 0.0)):
        assert refiner_sums(logits, jnp.array([scores]), truth, **OPTIONS)["refined_iou"] == (iou, 1.0)


def test_sums_of_parts_add_up():
    rng = np.random.default_rng(1)
    logits, predicted = rng.normal(size=(4, 3, 8, 8)), rng.random((4, 3))
    truth = rng.random((4, 8, 8)) < 0.5
    sums = jax.jit(functools.partial(refiner_sums, **OPTIONS))
    whole = sums(logits, predicted, truth)
    first, second = (sums(*(values[rows] for values in (logits, predicted, truth))) for rows in (slice(2), slice(2, 4)))
    for name, (total, count) in whole.items():
        np.testing.assert_allclose(total, first[name][0] + second[name][0], rtol=1e-5)
        assert count == first[name][1] + second[name][1] == 4


class SmallHead(nn.Module):
    """Three candidates: the mask itself with three gains, moved by the features' mean; scores are parameters."""

    config: RefinerHeadConfig
    on_cpu: bool = False

    @nn.compact
    def __call__(self, final, early, mask):
        gain = self.param("gain", nn.initializers.constant(0.0), (3,))
        tilt = self.param("tilt", nn.initializers.constant(0.0), (2,))
        scores = self.param("scores", nn.initializers.constant(0.0), (3,))
        moved = mask - 0.5 + tilt[0] * final.mean((1, 2))[:, None, None] + tilt[1] * early.mean((1, 2))[:, None, None]
        return gain[:, None, None] * moved[:, None], jnp.broadcast_to(scores, (len(mask), 3))


@pytest.mark.parametrize("options", [OPTIONS, {**OPTIONS, "kind": "focal", "best_of_masks": False}])
def test_a_step_adds_up_the_gradients_of_its_iterations(options):
    policy, frozen = micro_policy(), micro_params()
    rng = np.random.default_rng(2)
    crops = rng.integers(0, 256, (2, 48, 48, 3), np.uint8)
    coarse, truth = rng.random((2, 2, 48, 48)) < 0.5
    head = SmallHead(dataclasses.replace(policy.config.refiner, iterations=3))
    params = {
        "refiner": {"gain": jnp.array([3.0, -2.0, 1.0]), "tilt": jnp.array([0.3, 0.1]), "scores": jnp.arange(3.0)}
    }
    features = policy.model.apply({"params": frozen}, crops, method="encode_crops")

    def loss(params):
        mask, total = coarse.astype(jnp.float32), 0.0
        for _ in range(3):
            logits, scores = head.apply({"params": params["refiner"]}, *features, mask)
            sums = refiner_sums(logits, scores, truth, **options)
            total += (sums["mask"][0] + 0.2 * sums["iou"][0]) / 6
            mask = jax.lax.stop_gradient(jax.nn.sigmoid(logits[:, 2]))
        return total, sums["refined_iou"][0]

    (value, picked), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    step = make_refiner_step(
        head, optax.sgd(0.1), **options, iou_weight=0.2, average_decay=0.0
    )  # fmt: skip
    state, sums = step(init_state(jax.tree.map(jnp.copy, params), optax.sgd(0.1)), features, coarse, truth)
    np.testing.assert_allclose((sums["mask"][0] + 0.2 * sums["iou"][0]) / sums["mask"][1], value, rtol=1e-5)
    np.testing.assert_allclose(sums["refined_iou"][0] / sums["refined_iou"][1], picked / 2, rtol=1e-5)
    np.testing.assert_allclose(sums["gradient_norm"][0], optax.global_norm(gradients), rtol=1e-4)
    for name, gradient in gradients["refiner"].items():
        moved = params["refiner"][name] - 0.1 * gradient
        np.testing.assert_allclose(state.params["refiner"][name], moved, rtol=1e-4, atol=1e-6)
    assert state.step == 1
