"""Completions written by hand → IoU and reward on a raster of 48 x 48."""

import functools

import jax
import numpy as np
import pytest
from tiny_models import micro, micro_policy

from moonseg_jax.rewards import RewardSpec, WeightedTerm
from moonseg_jax.rewards.shapes import shape
from moonseg_jax.rollout.score import read_paths, score
from moonseg_jax.types import FINISH_BUDGET, FINISH_CLOSED, Rollouts

CONFIG = micro()
PATHS, SIDE = CONFIG.paths, CONFIG.paths.raster
SQUARE = "M 0 0 960 0 960 960 0 960 Z"
HOLE = "M 240 240 240 720 720 720 720 240 Z"
IOU = shape("iou")
WHOLE_IMAGE, CENTRE_HALF = (16, 16, 40, 40), (16, 16, 36, 36)
"""Bins of boxes: centre 16/32, width and height 1 or 1/2."""


def rollouts(*completions: tuple[tuple[int, int, int, int], str]) -> Rollouts:
    vocabulary, budget = micro_policy().vocabulary, PATHS.max_new_tokens
    number = dict(zip(vocabulary.integers.tolist(), vocabulary.integer_ids.tolist()))
    token_ids = np.full((len(completions), budget), PATHS.eos)
    bins = np.zeros((len(completions), budget, 2), int)
    lengths = np.zeros(len(completions), int)
    for row, ((cx, cy, width, height), path) in enumerate(completions):
        words = [vocabulary.command_ids.get(word) or number[int(word)] for word in path.split()]
        tokens = [PATHS.coord_token, PATHS.coord_token, PATHS.size_token, *words, PATHS.eos]
        token_ids[row, : len(tokens)] = tokens
        bins[row, :3] = (cx, 0), (cy, 0), (width, height)
        lengths[row] = len(tokens)
    finish = np.full(len(completions), FINISH_CLOSED)
    return Rollouts(
        token_ids=token_ids, bins=bins, log_probs=np.zeros(token_ids.shape), lengths=lengths,
        budgets=np.full(len(lengths), budget), finish=finish, experts=None,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames="reward")
def _judge(truth, drawn_by, references, step, reward):
    return score(drawn_by, read_paths(CONFIG, micro_policy().tables, drawn_by), truth, references, reward, step)


def judge(truth: list[np.ndarray], *completions, reward=IOU, references=(14, 14), step=0):
    """Scores of two completions for each of two prompts; one prompt's are repeated for a second one."""
    if len(truth) == 1:
        completions = (completions * 2)[:2] * 2
    return _judge(np.stack((truth * 2)[:2]), rollouts(*completions), np.array(references), step, reward)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_squares_against_the_left_half():
    left = rectangle(0, 0, 24, 48)
    centre = 12 * 24 / (24 * 48 + 12 * 24)
    found = judge([left], (WHOLE_IMAGE, SQUARE), (CENTRE_HALF, SQUARE))
    np.testing.assert_allclose(found.iou, [0.5, centre, 0.5, centre], atol=1e-6)
    np.testing.assert_array_equal(found.reward, found.iou)


def test_each_group_is_judged_by_its_own_truth():
    truth = [rectangle(0, 0, 48, 48), rectangle(12, 12, 36, 36)]
    both = (WHOLE_IMAGE, SQUARE), (CENTRE_HALF, SQUARE)
    np.testing.assert_allclose(judge(truth, *both, *both).iou, [1, 0.25, 0.25, 1], atol=1e-6)


def test_a_subpath_against_the_outline_is_a_hole():
    truth = rectangle(0, 0, 48, 48) & ~rectangle(12, 12, 36, 36)
    found = judge([truth], (WHOLE_IMAGE, f"{SQUARE} {HOLE}"), (WHOLE_IMAGE, SQUARE))
    np.testing.assert_allclose(found.iou[:2], [1.0, 0.75], atol=1e-6)


@pytest.mark.parametrize(("truth", "iou"), [(rectangle(0, 0, 0, 0), 1.0), (rectangle(0, 0, 4, 4), 0.0)])
def test_a_path_without_area_equals_only_an_empty_truth(truth, iou):
    assert judge([truth], (WHOLE_IMAGE, "M 0 0 960 0 480 0 Z")).iou[0] == iou


def test_the_reward_pays_for_every_token():
    dear = RewardSpec(terms=(WeightedTerm(term="iou"), WeightedTerm(term="tokens", parameters={"full": 100})))
    found = judge([rectangle(0, 0, 48, 48)], (WHOLE_IMAGE, SQUARE), reward=dear)
    np.testing.assert_allclose(found.reward[0], 1.0 - 0.01 * 14, atol=1e-6)


def test_terms_come_before_weighting_and_the_near_boundary_in_any_case():
    """Half of the square is true: rings of 2 px have 48² - 44² = 368 and 48·24 - 44·20 = 272 pixels, of which the left
    two columns (96) and the top and bottom rows of the other 22 (88) are common: 184 of 456."""
    half = RewardSpec(terms=(WeightedTerm(term="iou", weight=0.5), WeightedTerm(term="box_iou", weight=0.25)))
    found = judge([rectangle(0, 0, 24, 48)], (WHOLE_IMAGE, SQUARE), reward=half)
    terms = {name: float(values[0]) for name, values in found.terms.items()}
    assert terms == pytest.approx({"iou": 0.5, "box_iou": 0.5, "near_boundary_iou": 184 / 456}, abs=1e-6)
    assert found.reward[0] == pytest.approx(0.5 * 0.5 + 0.25 * 0.5)


def test_each_group_has_its_own_reference_and_the_weight_follows_the_step():
    """14 tokens beside 7 and 10 of the targets exceed them by 1 and .4."""
    priced = RewardSpec(terms=(WeightedTerm(term="iou"), WeightedTerm(term="excess_tokens", weight=((0, 0), (10, 1)))))
    whole = rectangle(0, 0, 48, 48)
    both = (WHOLE_IMAGE, SQUARE), (WHOLE_IMAGE, SQUARE)
    for step, weight in ((0, 0.0), (5, 0.5), (99, 1.0)):
        found = judge([whole, whole], *both, *both, reward=priced, references=(7, 10), step=step)
        np.testing.assert_allclose(found.reward, 1 - weight * np.array([1, 1, 0.4, 0.4]), atol=1e-6)


def test_an_unfinished_answer_costs_what_the_shape_says():
    spec = RewardSpec(
        terms=(WeightedTerm(term="iou"), WeightedTerm(term="validity", parameters={"out_of_budget": 0.4}))
    )
    cut = rollouts(*[(WHOLE_IMAGE, SQUARE)] * 4).replace(finish=np.array([FINISH_CLOSED, FINISH_BUDGET] * 2))
    found = _judge(np.stack([rectangle(0, 0, 48, 48)] * 2), cut, np.array([14, 14]), 0, spec)
    np.testing.assert_allclose(found.reward, [1.0, 0.6] * 2, atol=1e-6)
