"""Whether an answer tells that its object is not there."""

import jax
import numpy as np
import pytest
from micro_segmenter import micro_segmenter
from tiny_models import scenes

from data_pipelines.shapes.scene import draw_scene
from moonseg_jax.batch import prompt_batch
from moonseg_jax.bench.presence import told_apart
from moonseg_jax.predict import Segmenter
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.streaming import Finished
from moonseg_jax.types import Example

SCENES = 24
ABSENT = ("the red crescent", "the white cross", "the purple dots", "the yellow corner")


def area_under_curve(present, absent):
    present, absent = np.array(present)[:, None], np.array(absent)[None]
    return (present > absent).mean() + (present == absent).mean() / 2


def test_presence_ranks_phrases_of_present_objects_above_absent_ones():
    segmenter = Segmenter.load(refine=False)
    present, absent = [], []
    for index in range(SCENES):
        scene = draw_scene(0, 3000 + index, 2, "val")
        named = [f"the {one.role.colour} {one.role.kind}" for one in scene.objects]
        there = next((phrase for phrase in named if named.count(phrase) == 1), None)
        if there is None:
            continue
        missing = next(phrase for phrase in ABSENT[index % len(ABSENT) :] + ABSENT if phrase not in named)
        yes, no = segmenter.segment(scene.image, [there, missing])
        present.append(yes.presence)
        absent.append(no.presence)
    assert all(0 < value < 1 for value in present + absent)
    assert area_under_curve(present, absent) > 0.8


def test_presence_is_the_probability_of_the_centre_that_was_drawn():
    segmenter, image = micro_segmenter(), scenes(1)[0].examples[0].image
    rows = [[Example(image=image, phrase="the red star", target=None, image_id=0, example_id=0)]]
    batch = prompt_batch(rows, segmenter.policy.layout(1, 1))
    greedy = Sampling(temperature=0, record_experts=False)
    policy, keys = segmenter.policy, jax.random.split(jax.random.key(0), 1)
    drawn, _ = sample(policy.model, policy.grammar, segmenter.params, batch, keys, greedy)
    expected = float(np.exp(drawn.log_probs[0, :2].sum()))
    answer = segmenter.segment(image, "the red star", refine=False)
    assert answer.presence == pytest.approx(expected, rel=1e-4) and answer.to_json()["presence"] == answer.presence
    *_, last = segmenter.segment(image, "the red star", refine=False, stream=True)
    assert isinstance(last, Finished) and last.segmentation.presence == pytest.approx(expected, rel=1e-4)


def test_the_measurement_of_a_value_by_hand():
    pairs = [(True, 0.5), (True, 0.05), (True, 0.9), (False, 0.05), (False, 0.01)]
    assert told_apart(pairs) == {
        "auc": pytest.approx((5 + 0.5) / 6),
        "median": {"present": 0.5, "absent": pytest.approx(0.03)},
        "below": {"present": pytest.approx(1 / 3), "absent": 1.0},
    }
