"""No hack pays under a recommended shape, and the others are open to what they say, no more and no less."""

from __future__ import annotations

import functools
from typing import get_args

import jax
import numpy as np
import pytest
from reward_samples import OBJECTS, answers, judged_rows, tokens

from moonseg_jax.rewards.reward import reward_of, row_values
from moonseg_jax.rewards.shapes import SHAPES, Hack

ANSWERS = list(answers(OBJECTS["blob"]))
SHAPE = len(OBJECTS), len(ANSWERS)
TIE = 1e-6
SAFE = 0.02
"""Least lead of an honest outline under a recommended shape."""


@functools.cache
def judged():
    """Raw IoU, and the rewards of all shapes at their breakpoints, for every answer to every object."""
    used = {one.label: one for named in SHAPES.values() for one in named.spec.terms}
    names, rows = judged_rows()
    assert names == [(name, answer) for name in OBJECTS for answer in ANSWERS]

    @jax.jit
    def judge(rows):
        values = jax.vmap(lambda row: row_values(used.values(), row))(rows)
        rewards = {
            name: [reward_of(one.spec, values, step) for step in one.spec.breakpoints] for name, one in SHAPES.items()
        }
        return values.iou, rewards

    iou, rewards = jax.device_get(judge(rows))
    return iou.reshape(SHAPE), {name: np.reshape(one, (-1, *SHAPE)) for name, one in rewards.items()}


def leads(name: str) -> dict[str, float]:
    """By how much the honest outline earns more than each other answer, at worst over objects and steps."""
    reward = judged()[1][name]
    return dict(zip(ANSWERS, (reward[..., :1] - reward).min(axis=(0, 1)).tolist()))


def test_the_honest_outlines_are_rough_and_the_hacks_are_what_they_are_called():
    by_answer = dict(zip(ANSWERS, judged()[0].T))
    assert np.all((by_answer["honest"] > 0.8) & (by_answer["honest"] < 0.93))
    assert by_answer["box_echo"][0] > 0.7 and by_answer["box_echo"][1] < 0.2
    for one in OBJECTS.values():
        given = {answer: tokens(polygons) for answer, (polygons, _, _) in answers(one).items()}
        assert given["honest"] < tokens(one.true) and given["overlong"] > 2 * tokens(one.true)
    assert np.all(by_answer["empty"] == 0) and np.all(by_answer["full_frame"] < 0.3)
    np.testing.assert_allclose(by_answer["overlong"], by_answer["honest"], atol=1e-3)
    np.testing.assert_allclose(by_answer["tiny_subpaths"], by_answer["honest"], atol=0.01)


@pytest.mark.parametrize("name", [name for name, one in SHAPES.items() if one.recommended])
def test_nothing_beats_an_honest_outline_under_a_recommended_shape(name):
    found = leads(name)
    del found["honest"]
    assert min(found.values()) > SAFE, found


@pytest.mark.parametrize("name", [name for name, one in SHAPES.items() if not one.recommended])
def test_the_other_shapes_are_open_to_the_hacks_they_list_and_to_no_others(name):
    found = leads(name)
    assert {hack for hack in get_args(Hack) if found[hack] <= TIE} == set(SHAPES[name].hacks), found
