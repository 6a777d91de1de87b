"""Losses of the refinement head against numbers worked with NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.learner.refiner import boundary_weights, mask_losses, refiner_sums, true_iou

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


def test_true_iou_counts_thresholded_pixels():
    truth = jnp.array([[[True, True], [False, False]], [[False, False], [False, False]]])
    logits = jnp.array([[[3.0, -1.0], [0.1, -9.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    np.testing.assert_allclose(true_iou(logits, truth), [1 / 3, 1.0])


def candidates(truth):
    """Logits [2 iterations, 1 crop, 3 masks]: right, wrong and empty, in another order per iteration."""
    right = np.where(truth, 4.0, -4.0)
    masks = {"right": right, "wrong": -right, "empty": np.full(truth.shape, -4.0)}
    order = (("right", "wrong", "empty"), ("empty", "right", "wrong"))
    return jnp.array([[[masks[name] for name in names]] for names in order])


def test_best_of_masks_supervises_the_best_of_every_iteration():
    truth = jnp.array(square())[None]
    logits = candidates(square())
    single = mask_losses(logits, truth[None, :, None], boundary_weights(truth, 2.0)[None, :, None], "bce", 1.0)
    best = refiner_sums(logits, jnp.zeros((2, 1, 3)), truth, **OPTIONS)["mask"]
    mean = refiner_sums(logits, jnp.zeros((2, 1, 3)), truth, **{**OPTIONS, "best_of_masks": False})["mask"]
    np.testing.assert_allclose(best[0], (single[0, 0, 0] + single[1, 0, 1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(mean[0], single.mean(), rtol=1e-6)
    assert best[1] == mean[1] == 1


def test_scores_are_regressed_to_the_true_iou_of_every_candidate():
    truth = jnp.array(square())[None]
    predicted = jnp.array([[[0.9, 0.0, 0.2]], [[0.5, 1.0, 0.3]]])
    # True IoU: right 1, wrong 0, empty 0.
    expected = np.mean([(0.9 - 1) ** 2, 0, 0.2**2, 0.5**2, 0, 0.3**2])
    sums = refiner_sums(candidates(square()), predicted, truth, **OPTIONS)
    np.testing.assert_allclose(sums["iou"][0], expected, rtol=1e-5)


def test_refined_iou_is_of_the_candidate_the_head_would_pick_last():
    truth = jnp.array(square())[None]
    for last, iou in (([0.1, 0.9, 0.2], 1.0), ([0.9, 0.1, 0.2], 0.0)):
        predicted = jnp.array([[[1.0, 0.0, 0.0]], [last]])
        assert refiner_sums(candidates(square()), predicted, truth, **OPTIONS)["refined_iou"] == (iou, 1.0)


def test_sums_of_parts_add_up():
    rng = np.random.default_rng(1)
    logits, predicted = rng.normal(size=(2, 5, 3, 8, 8)), rng.random((2, 5, 3))
    truth = rng.random((5, 8, 8)) < 0.5

    def sums(rows):
        part = (jnp.array(values[:, rows]) for values in (logits, predicted))
        return refiner_sums(*part, jnp.array(truth[rows]), **OPTIONS)

    whole, first, second = sums(slice(0, 5)), sums(slice(0, 2)), sums(slice(2, 5))
    for name, (total, count) in whole.items():
        np.testing.assert_allclose(total, first[name][0] + second[name][0], rtol=1e-5)
        assert count == first[name][1] + second[name][1] == 5
