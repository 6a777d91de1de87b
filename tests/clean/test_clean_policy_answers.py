"""A policy's answers come to the instances whose phrases they answer; decoding is replaced."""

import types

import numpy as np
import pytest
from echo_refiners import EchoRefiner

from moonseg_jax.clean import policy_answers
from moonseg_jax.clean.agreement import measure_members
from moonseg_jax.clean.instances import NO_TARGET, POINTS, instances_of
from moonseg_jax.clean.log import run_lengths
from moonseg_jax.clean.policy_answers import PolicyAnswers
from moonseg_jax.config import tiny
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Prediction
from moonseg_jax.paths.fill import fill
from moonseg_jax.refine import Refined
from moonseg_jax.status import REFINED
from moonseg_jax.types import Example, Scene

SIDE = 20


class WidthDecoder:
    """Draws the left columns of the image, as many as the phrase says; no call may hold more phrases than asked."""

    made: list

    def __init__(self, policy, *, images, phrases, crops):
        self.phrases = phrases
        WidthDecoder.made.append(crops)

    def __call__(self, params, scenes):
        assert all(0 < len(scene.examples) <= self.phrases for scene in scenes)
        return [self._draw(example) for scene in scenes for example in scene.examples]

    def _draw(self, example):
        width = int(example.phrase) / SIDE
        corners = np.array([(0, 0), (width, 0), (width, 1), (0, 1)])
        return Prediction(example=example, box=np.array([width / 2, 0.5, width, 1.0]), polygons=(corners,), tokens=4)


def prompt(phrase):
    if not phrase.isdigit():
        raise UserError("not a word of the vocabulary")


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.setattr(policy_answers, "Decoder", WidthDecoder)
    WidthDecoder.made = []
    policy = types.SimpleNamespace(config=tiny(), vocabulary=types.SimpleNamespace(prompt=prompt))
    return PolicyAnswers(policy, None, EchoRefiner())


def left(columns, side=SIDE):
    corners = np.array([(0, 0), (columns, 0), (columns, side), (0, side)], float)
    return fill([corners], side, side)


def scene_of(*said, side=SIDE):
    """A scene of (phrase, columns of its target or None, references)."""
    examples = []
    for number, (phrase, columns, references) in enumerate(said):
        target = None if columns is None else run_lengths(left(columns, side))
        if target is not None:
            target = {**target, "counts": target["counts"].encode()}
        image = np.zeros((side, side, 3), np.uint8)
        examples.append(
            Example(
                image=image, phrase=phrase, target=target, image_id=7, example_id=number, references=references,
            )
        )  # fmt: skip
    return Scene(examples=tuple(examples))


def test_phrases_are_gathered_by_mask_and_those_the_format_cannot_hold_are_named():
    instances, dropped = instances_of(
        scene_of(("a", 4, ()), ("b", 9, ()), ("c", 4, ()), ("d", None, ()), ("e", 4, ((0.5, 0.5),))), 3
    )
    assert [(one.phrases, one.example_ids, one.position) for one in instances] == [
        (("a", "c"), (0, 2), 0),
        (("b",), (1,), 1),
    ]
    assert [(one.phrase, one.reason) for one in dropped] == [("d", NO_TARGET), ("e", POINTS)]
    np.testing.assert_array_equal(instances[1].annotation, left(9))


def test_every_instance_gets_the_answers_to_its_own_phrases(answers):
    said = scene_of(("4", 4, ()), ("8", 8, ()), ("8", 4, ()), ("2", 4, ()), ("zebra", 4, ()), ("unicorn", 10, ()))
    instances, _ = instances_of(said, 0)
    members = [[Refined(mask=one.annotation, status=REFINED, score=1.0)] * 2 for one in instances]
    measured = [measure_members(one.annotation, drawn) for one, drawn in zip(instances, members)]
    found = answers.compare(instances, measured)
    # The first has answers of 4, 8 and 2 columns against its 4: IoU 1, 1/2, 1/2; the last can say no phrase.
    assert [one.phrase_iou for one in found] == [pytest.approx(2 / 3), 1.0, None]
    assert [one.stay for one in found] == [1.0] * 3


def test_images_of_one_crop_and_of_many_have_a_decoder_each(answers):
    large = 4 * tiny().vision.crop
    instances = [*instances_of(scene_of(("4", 4, ())), 0)[0], *instances_of(scene_of(("5", 5, ()), side=large), 1)[0]]
    masks = answers.masks_of([*instances, *instances])
    assert sorted(set(WidthDecoder.made)) == sorted(WidthDecoder.made) and len(WidthDecoder.made) == 2
    assert [mask[0].shape[0] for mask in masks] == [SIDE, large, SIDE, large]
