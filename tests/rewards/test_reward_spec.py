"""Reward shapes as data: what is accepted, what is refused and with which words."""

from __future__ import annotations

import dataclasses
import json

import pytest

from moonseg_jax.errors import UserError
from moonseg_jax.rewards.shapes import SHAPES, shape
from moonseg_jax.rewards.spec import RewardSpec
from moonseg_jax.rewards.terms import TERMS
from moonseg_jax.rewards.weighted_term import WeightedTerm


def spec(*terms: tuple, **settings) -> RewardSpec:
    """(name, weight, parameters) of each term, the later ones optional."""
    fields = [dict(zip(("term", "weight", "parameters"), term)) for term in terms]
    return RewardSpec(terms=tuple(WeightedTerm(**one) for one in fields), **settings)


def test_labels_tell_terms_of_one_name_apart():
    found = spec(
        ("iou",), ("boundary_iou", 1.0, {"share": 0.02}), ("boundary_iou", 0.5, {"share": 0.005}),
        ("excess_tokens", 0.1, {"slack": 2, "above": 0.5}),
    )  # fmt: skip
    assert [one.label for one in found.terms] == [
        "iou", "boundary_iou", "boundary_iou(share=0.005)", "excess_tokens(above=0.5, slack=2.0)",
    ]  # fmt: skip


def test_defaults_stand_where_nothing_is_said():
    assert WeightedTerm(term="excess_tokens", parameters={"slack": 2.0}).all_parameters == {
        "slack": 2.0, "full": 1.0, "above": 0.0,
    }  # fmt: skip


def test_weights_run_in_straight_lines_between_the_points():
    term = WeightedTerm(term="iou", weight=((100, 0.0), (300, 1.0), (400, 0.5)))
    found = [term.weight_at(step) for step in (0, 100, 150, 300, 350, 400, 9000)]
    assert found == pytest.approx([0, 0, 0.25, 1, 0.75, 0.5, 0.5])


@pytest.mark.parametrize("name", SHAPES)
def test_named_shapes_survive_json(name):
    found = shape(name)
    assert RewardSpec.from_data(json.loads(json.dumps(found.as_data()))) == found
    assert RewardSpec.from_data(json.loads(json.dumps(dataclasses.asdict(found)))) == found
    assert hash(RewardSpec.from_data(found.as_data())) == hash(found)


def test_a_spec_may_be_written_in_few_words():
    assert RewardSpec.from_data({"terms": [{"term": "iou"}]}) == spec(("iou", 1.0))


def test_changing_the_given_parameters_later_changes_nothing():
    parameters = {"share": 0.01}
    term = WeightedTerm(term="boundary_iou", parameters=parameters)
    parameters["share"] = 7.0
    assert term.all_parameters == {"share": 0.01}


def test_there_are_ten_shapes_at_least_and_terms_for_every_axis():
    assert len(SHAPES) >= 10 and sum(one.recommended for one in SHAPES.values()) >= 5
    assert {term.axis for term in TERMS.values()} == {1, 2, 3, 4, 5, 6}
    used = {one.term for named in SHAPES.values() for one in named.spec.terms}
    assert TERMS.keys() - used == {"soft_iou", "least_of_iou_and_boundary"}


def test_every_term_states_its_formula():
    assert [name for name, term in TERMS.items() if not (term.formula.__doc__ or "").strip()] == []
    bounds = [(one.low, one.default, one.high) for term in TERMS.values() for one in term.parameters.values()]
    assert all(low <= default <= high for low, default, high in bounds)


@pytest.mark.parametrize(
    ("terms", "settings", "words"),
    [
        ([("boundry_iou",)], {}, "no term 'boundry_iou'; did you mean 'boundary_iou'"),
        ([("xyz",)], {}, "no term 'xyz'; known: iou, soft_iou"),
        ([(["iou"],)], {}, r"no term \['iou'\]"),
        ([("boundary_iou", 1.0, {"shares": 0.1})], {}, "boundary_iou has no parameter 'shares'; did you mean 'share'"),
        ([("iou", 1.0, {"share": 0.1})], {}, "iou has no parameter 'share'; it has none"),
        ([("iou", 1.0, [0.1])], {}, "parameters of iou must be named"),
        ([("boundary_iou", 1.0, {"share": 0.7})], {}, r"boundary_iou.share is 0.7; it must lie in 0..0.5"),
        ([("boundary_iou", 1.0, {"share": float("nan")})], {}, "boundary_iou.share is nan; it must be a finite number"),
        ([("iou", float("nan"))], {}, "weight of iou is nan; it must be a finite number"),
        ([("iou", float("inf"))], {}, "weight of iou is inf"),
        ([("iou", "1")], {}, "weight of iou is '1'"),
        ([("iou", True)], {}, "weight of iou is True"),
        ([("iou", ())], {}, "schedule of iou must be"),
        ([("iou", (1.0, 2.0))], {}, "schedule of iou must be"),
        ([("iou", ((0, 1.0), (0, 0.5)))], {}, "schedule of iou has steps .* must increase"),
        ([("iou", ((-5, 1.0), (0, 0.5)))], {}, "must increase, from 0 or more"),
        ([("iou", ((0, 1.0), (0.5, 0.5)))], {}, "must be whole"),
        ([("iou", ((0, 1.0), (5, float("nan"))))], {}, "a weight of iou's schedule is nan"),
        ([], {}, "there are no terms"),
        ([("iou",), ("iou", 0.5)], {}, "iou stands there twice"),
        ([("iou", 0.0)], {}, "weights of qualities are all zero"),
        ([("tokens",)], {}, "weights of qualities are all zero"),
        ([("iou", 1.0), ("soft_iou", -1.0)], {}, r"cancel \(iou 1, soft_iou -1\)"),
        ([("iou", 1.0), ("soft_iou", -2.0)], {}, "cancel"),
        ([("iou", 1.0), ("soft_iou", -1.0), ("box_iou", 1.0)], {}, r"base terms \(axis 1\) cancel"),
        (
            [("iou", ((0, 1.0), (9, 0.0))), ("box_iou", ((0, 0.0), (5, 0.0)))],
            {},
            "weights of qualities at step 9 are all zero",
        ),
        ([("iou", 1.0), ("box_iou", ((0, 0.0), (50, -1.0)))], {}, r"qualities at step 50 cancel \(iou 1, box_iou -1\)"),
        ([("iou",), ("tokens", -0.5)], {}, "weight of tokens is -0.5, which pays for what should cost"),
        ([("iou", 2.0), ("box_iou", -1.0)], {"combination": "product"}, "a product needs 0 or more"),
        ([("iou", 1.5)], {"combination": "min"}, "a min needs weights up to 1"),
        ([("iou",)], {"combination": "mean"}, "no combination 'mean'; did you mean 'min'"),
        ([("iou",), ("boundary_iou",)], {"combination": "gated"}, "gate is None; a gated reward needs"),
        ([("iou",), ("boundary_iou",)], {"combination": "gated", "gate": 1.0}, "gate is 1.0; a gated reward needs"),
        ([("iou",), ("boundary_iou",)], {"combination": "gated", "gate": float("nan")}, "gate is nan"),
        ([("iou",)], {"combination": "gated", "gate": 0.5}, "nothing to hold back"),
        ([("box_iou",)], {"combination": "gated", "gate": 0.5}, r"base terms \(axis 1\)"),
        ([("iou",)], {"gate": 0.5}, "gate is 0.5, and a sum has none"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(terms, settings, words):
    with pytest.raises(UserError, match=words):
        spec(*terms, **settings)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "terms must be a list"),
        ({"terms": "iou"}, "terms must be a list"),
        ({"terms": ["iou"]}, r"terms\[0\] must be a table of fields"),
        ({"terms": [{"weight": 1.0}]}, r"terms\[0\] has no name"),
        ({"terms": [{"term": "iou", "wieght": 1.0}]}, r"terms\[0\] has no field 'wieght'; did you mean 'weight'"),
        ({"terms": [{"term": "iou"}], "combine": "min"}, "reward has no field 'combine'; did you mean 'combination'"),
        ([], "reward must be a table"),
    ],
)
def test_data_that_is_no_reward_is_refused(data, words):
    with pytest.raises(UserError, match=words):
        RewardSpec.from_data(data)


@pytest.mark.parametrize("terms", [None, "iou", ({"term": "iou"},), ("iou",)])
def test_terms_that_are_none_are_refused(terms):
    with pytest.raises(UserError, match="terms must be WeightedTerms"):
        RewardSpec(terms=terms)


def test_a_quality_may_be_held_against_another():
    found = spec(("iou", 1.0), ("box_iou", -0.5))
    assert [one.weight for one in found.terms] == [1.0, -0.5]


def test_an_unknown_shape_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="no shape 'boundry'; did you mean 'boundary'"):
        shape("boundry")
