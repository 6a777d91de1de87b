"""Held-out figures of a refinement head."""

import dataclasses

import numpy as np
import pytest
from tiny_models import micro_policy, scenes

from moonseg_jax import refiner_evaluation
from moonseg_jax.batch import true_mask
from moonseg_jax.evaluate import Prediction
from moonseg_jax.refine import REFINED, Refined
from moonseg_jax.refiner_evaluation import refined_evaluation, share_worse
from moonseg_jax.synthetic_pairs import true_box


def test_a_mask_is_worse_where_it_lost_more_than_a_hundredth():
    coarse = np.array([0.9, 0.9, 0.5, 1.0])
    refined = np.array([0.895, 0.88, 0.9, 0.2])
    assert share_worse(coarse, refined) == 0.5
    assert share_worse(coarse, coarse) == 0.0


@pytest.fixture
def stubs(monkeypatch):
    """A policy that draws the left half of every image, a refiner that keeps a share of the rows it gets."""
    asked = []

    class Decoder:
        def __init__(self, policy, **sizes):
            pass

        def __call__(self, params, found):
            half = (np.array([[0, 0], [0.5, 0], [0.5, 1], [0, 1]]),)
            box = np.array([0.25, 0.5, 0.5, 1])
            examples = [example for scene in found for example in scene.examples]
            return [Prediction(example=example, box=box, polygons=half, tokens=9) for example in examples]

    class Refiner:
        def __init__(self, policy, params, head):
            pass

        def replace_head(self, head):
            self.head = head

        def refine(self, images, boxes, coarse):
            asked.append([tuple(box) for box in boxes])
            kept = [mask & (np.arange(len(mask)) < len(mask) * self.head)[:, None] for mask in coarse]
            return [Refined(mask=mask, status=REFINED, score=0.5) for mask in kept]

    monkeypatch.setattr(refiner_evaluation, "Decoder", Decoder)
    monkeypatch.setattr(refiner_evaluation, "Refiner", Refiner)
    return asked


def iou(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def test_what_the_head_breaks_is_measured(stubs):
    found = list(scenes(3))
    no_target = dataclasses.replace(found[0].examples[0], target=None)
    found[0] = dataclasses.replace(found[0], examples=(no_target, *found[0].examples[1:]))
    examples = [example for scene in found for example in scene.examples]
    truths = [true_mask(example) for example in examples]
    evaluate = refined_evaluation(micro_policy(), None, found, phrases=2, crops=1)

    figures = evaluate(0.5)
    left, upper = np.zeros((48, 48), bool), np.zeros((48, 48), bool)
    left[:, :24], upper[:24] = True, True
    coarse, refined = ([iou(mask, truth) for truth in truths] for mask in (left, left & upper))
    assert figures["coarse_miou"] == pytest.approx(np.mean(coarse))
    assert figures["miou"] == pytest.approx(np.mean(refined))
    assert figures["worse"] == pytest.approx(np.mean([a > b + 0.01 for a, b in zip(coarse, refined)]))
    assert 0 < figures["worse"] < 1
    with_target = [truth for truth in truths if truth.any()]
    assert len(with_target) == len(truths) - 1
    assert figures["identity_iou"] == pytest.approx(np.mean([iou(truth & upper, truth) for truth in with_target]))
    assert stubs[1] == [tuple(true_box(truth)) for truth in with_target]

    unchanged = evaluate(1.0)
    assert (unchanged["identity_iou"], unchanged["worse"]) == (1.0, 0.0)
    assert unchanged["miou"] == unchanged["coarse_miou"] == figures["coarse_miou"]
