"""Splitting a batch by images: who goes where, and back."""

import jax.numpy as jnp
import numpy as np

from moonseg_jax.learner.micro_batches import joined_rows, split_rollouts, split_rows
from moonseg_jax.types import Rollouts, Routing

IMAGES, ROWS = 6, 2
OF_IMAGE = np.arange(IMAGES)
OF_ROW = np.repeat(OF_IMAGE, ROWS)


def test_an_image_and_its_rows_go_to_the_same_part():
    per_image, per_row = split_rows((OF_IMAGE, np.stack([OF_ROW, np.arange(12)], axis=1)), IMAGES, 3)
    np.testing.assert_array_equal(per_image, [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(per_row[1], [[1, 2], [1, 3], [4, 8], [4, 9]])


def test_rows_may_lie_along_a_later_axis():
    layered = np.stack([OF_ROW, 10 + OF_ROW])[..., None]
    parts = split_rows(layered, IMAGES, 2, axis=1)
    np.testing.assert_array_equal(parts[1, :, :, 0], [[1, 1, 3, 3, 5, 5], [11, 11, 13, 13, 15, 15]])


def test_joining_undoes_splitting():
    rows = jnp.arange(24).reshape(12, 2)
    for count in (1, 2, 3, 6):
        np.testing.assert_array_equal(joined_rows(split_rows(rows, IMAGES, count), IMAGES), rows)


def test_rollouts_keep_the_experts_of_their_images():
    layers = np.zeros((2, 1, 1, 1), int)
    experts = Routing(
        image=layers + OF_IMAGE[:, None, None], prompt=layers + OF_IMAGE[:, None, None],
        completion=layers + OF_ROW[:, None, None],
    )  # fmt: skip
    rollouts = Rollouts(
        token_ids=OF_ROW[:, None], bins=OF_ROW[:, None, None], log_probs=OF_ROW[:, None], lengths=OF_ROW,
        budgets=OF_ROW, finish=OF_ROW, experts=experts,
    )  # fmt: skip
    parts = split_rollouts(rollouts, IMAGES, 3)
    np.testing.assert_array_equal(parts.lengths[2], [2, 2, 5, 5])
    np.testing.assert_array_equal(parts.experts.image[2, :, :, 0, 0], [[2, 5]] * 2)
    np.testing.assert_array_equal(parts.experts.prompt[2, :, :, 0, 0], [[2, 5]] * 2)
    np.testing.assert_array_equal(parts.experts.completion[2, :, :, 0, 0], [[2, 2, 5, 5]] * 2)
    assert split_rollouts(rollouts.replace(experts=None), IMAGES, 3).experts is None
