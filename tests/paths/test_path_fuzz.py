"""Whatever comes in: path text, boxes and masks give a defined result or one clear error."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strict_parser import is_accepted

from moonseg_jax.config import tiny
from moonseg_jax.errors import UserError
from moonseg_jax.paths.close_fit import least_iou, simplify_closely
from moonseg_jax.paths.engine.completion_text import CompletionTextError, group_pieces, scaled_words
from moonseg_jax.paths.engine.path_data import MOST_PARTS, flatten, polygons_of_path, read_path_data
from moonseg_jax.paths.engine.render import FARTHEST_BOX, render_path
from moonseg_jax.paths.fill import fill, winding_numbers
from moonseg_jax.paths.svg import parse_polygons, path_text, svg_document
from moonseg_jax.paths.target import encode_target
from moonseg_jax.paths.trace import signed_area, trace
from moonseg_jax.paths.vocabulary import Vocabulary

COARSE = dataclasses.replace(tiny().paths, max_new_tokens=30)
FINE = dataclasses.replace(
    tiny().paths, max_new_tokens=200, trace_tolerance=0.5, tokenizer="embedded:small", coordinate_step=15
)
REGION = tiny().region
VOCABULARIES = {paths: Vocabulary.from_config(paths) for paths in (COARSE, FINE)}

numbers = st.one_of(
    st.integers(-2000, 2000).map(str), st.floats().map(repr), st.sampled_from(["1e999", "-.5", "9" * 400, "1e-999"])
)
letters = st.sampled_from("MLHVCSQTAZmlhvcsqtaz")
words = st.lists(st.one_of(letters, numbers, st.sampled_from([",", "-", "B", "", "٣", "NaN"])), max_size=24)
path_like = words.map(" ".join).map("M0 0".__add__)
glued = words.map("".join)
anything = st.one_of(path_like, glued, st.text(max_size=40))
sides = st.one_of(st.floats(-2, 2), st.sampled_from([0.0, float("nan"), float("inf"), -float("inf"), 1e300, 5e-324]))
boxes = st.tuples(sides, sides, sides, sides)


@st.composite
def masks(draw) -> np.ndarray:
    """Noise of any density, up to 20 pixels on a side, in one of eight settings of its border and size."""
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    bits = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random((height, width))
    mask = bits < draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0]))
    if draw(st.booleans()):
        mask = mask.repeat(draw(st.integers(1, 4)), axis=0).repeat(draw(st.integers(1, 4)), axis=1)
    if draw(st.booleans()):
        mask[[0, -1]] = True
        mask[:, [0, -1]] = True
    return mask


@settings(max_examples=1500, deadline=None)
@given(anything)
@example("M0 0C1e9 1e9-1e9 1e9 1e9-1e9")
@example("M0 0A1e9 1e-9 45 1 0 1 1")
def test_path_data_of_any_text_is_finite_and_flattens_in_bounds(text):
    data = read_path_data(text)
    for subpath in data.subpaths:
        vertices = flatten(subpath, 1e-4)
        assert np.isfinite(vertices).all() and len(vertices) <= 1 + MOST_PARTS * len(subpath)
    if data.error is not None:
        with pytest.raises(UserError, match="path data, position"):
            polygons_of_path(text)


@settings(max_examples=1000, deadline=None)
@given(anything)
def test_strictly_read_text_is_refused_or_comes_back(text):
    try:
        polygons = parse_polygons(text)
    except UserError as error:
        assert str(error).startswith("path text")
        return
    for polygon in polygons:
        assert polygon.shape[1] == 2 and np.isfinite(polygon).all()
    assert len(parse_polygons(path_text(polygons))) == len(polygons)


@settings(max_examples=800, deadline=None)
@given(st.lists(st.one_of(letters, st.integers(0, 5000).map(str), st.sampled_from(["-", "x", "1.5", ""])), max_size=16))
def test_pieces_of_a_completion_are_refused_or_give_path_data(pieces):
    try:
        grouped = group_pieces(pieces)
    except CompletionTextError as error:
        assert error.engine_message and "path text, piece" in str(error)
        return
    data = read_path_data(" ".join(scaled_words(grouped)))
    assert all(np.isfinite(subpath).all() for subpath in data.subpaths)


@settings(max_examples=500, deadline=None)
@given(path_like, boxes)
@example("M0 0L-1 0", (0.5, 0.5, 1e300, 1.0))
@example("M0 0L1 1 0 1", (0.0, 0.0, 1.0, 5e-324))
@example("M0 0C1e9 1e9-1e9 1e9 1e9-1e9", (1e4, -1e4, 1e4, 1e4))
def test_rendering_in_any_box_is_a_share_or_one_error(text, box):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            soft = render_path(text, box, 5, 7)
    except UserError as error:
        assert str(error).startswith("box") and not (np.abs(box) <= FARTHEST_BOX).all()
        return
    assert soft.shape == (5, 7) and soft.min() >= 0 and soft.max() <= 1


@settings(max_examples=200, deadline=None)
@given(boxes)
def test_documents_in_any_box_hold_numbers_or_are_refused(box):
    try:
        document = svg_document("M0 0Z", box, width=3, height=2)
    except UserError:
        assert not np.isfinite(box).all()
        return
    assert "nan" not in document and "inf" not in document


@settings(max_examples=700, deadline=None)
@given(masks(), st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0]))
def test_simplified_masks_keep_what_they_promise_under_both_rules(mask, tolerance):
    outlines = [polygon for part in trace(mask) for polygon in part.polygons]
    np.testing.assert_array_equal(fill(outlines, *mask.shape), mask)
    if not outlines:
        assert not mask.any()
        return
    fit = simplify_closely(outlines, mask, tolerance)
    winding = winding_numbers(fit.polygons, *mask.shape)
    np.testing.assert_array_equal(winding != 0, winding % 2 == 1)
    drawn = winding != 0
    assert (drawn & mask).sum() / (drawn | mask).sum() == fit.iou >= least_iou(tolerance)
    assert len(fit.polygons) == len(outlines) and 0 <= fit.tolerance <= tolerance


@settings(max_examples=500, deadline=None)
@given(masks(), st.sampled_from([COARSE, FINE]), st.booleans())
def test_targets_of_any_mask_fit_the_budget_and_say_what_they_lost(mask, paths, explicit):
    target = encode_target(mask, vocabulary=VOCABULARIES[paths], paths=paths, region=REGION, explicit=explicit)
    assert len(target.token_ids) <= paths.max_new_tokens
    assert np.isfinite(target.box).all() and 0 <= target.iou <= 1
    enclosed = sum(abs(signed_area(polygon)) for part in trace(mask) for polygon in part.polygons)
    assert 0 <= target.dropped_area < max(enclosed, 1)
    if mask.any():
        assert is_accepted(target.token_ids.tolist(), VOCABULARIES[paths], paths, explicit=explicit)
    else:
        assert target.token_ids.tolist() == [paths.eos] and target.dropped_area == 0 and target.iou == 1


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_masks_without_pixels_have_no_parts(shape):
    assert trace(np.zeros(shape, bool)) == ()


@pytest.mark.parametrize("shape", [(4,), (4, 4, 3)])
def test_arrays_that_are_no_masks_are_refused(shape):
    with pytest.raises(UserError, match="give one of height and width"):
        trace(np.ones(shape, bool))
