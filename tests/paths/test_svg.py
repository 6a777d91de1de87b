"""Path text, documents and the host's reading of tokens."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import resvg_py
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_samples import smooth_shapes
from PIL import Image

from moonseg_jax.config import tiny
from moonseg_jax.errors import UserError
from moonseg_jax.paths.reading import polygons_from_tokens
from moonseg_jax.paths.svg import format_number, parse_polygons, path_text, svg_document
from moonseg_jax.paths.target import encode_target
from moonseg_jax.paths.vocabulary import Vocabulary

CONFIG = tiny()
VOCABULARY = Vocabulary.from_config(CONFIG.paths)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.5, "0.5"),
        (1 / 3, "0.333"),
        (-0.0004, "-0"),
        (12.3456, "12.346"),
        (100.0, "100"),
    ],
)
def test_numbers_are_printed_as_the_engine_prints_them(value, text):
    assert format_number(value) == text


def test_path_text_of_two_polygons():
    polygons = [np.array([(0, 0.5), (1, 0), (0.25, 1 / 3)]), np.array([(0, 0), (1, 0), (1, 1)])]
    assert path_text(polygons) == "M 0 0.5 L 1 0 L 0.25 0.333 Z M 0 0 L 1 0 L 1 1 Z"


polygon_lists = st.lists(
    st.lists(st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000)), min_size=1, max_size=8),
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(polygon_lists)
def test_text_comes_back_as_it_was(polygons):
    given_polygons = [np.array(polygon) / 1000 for polygon in polygons]
    parsed = parse_polygons(path_text(given_polygons))
    assert len(parsed) == len(given_polygons)
    for ours, theirs in zip(parsed, given_polygons):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_implicit_line_tos_and_compact_writing_are_read():
    (polygon,) = parse_polygons("M0,.5L1-.25 .5,1Z")
    np.testing.assert_allclose(polygon, [(0, 0.5), (1, -0.25), (0.5, 1)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 M 1 1 Z", "position 0: number 0 before the first command"),
        ("M 0 0 1 Z", "position 0: M needs pairs of numbers and has 3"),
        ("M 0 0 L L 1 1 Z", "position 5: L needs pairs"),
        ("M 0 0 L 1 1", "not closed"),
        ("M 0 0 M 1 1 Z", "position 5: M after M"),
        ("L 0 0 Z", "position 0: L after Z"),
        ("M 0 0 Z 1 1", "number 1 after Z"),
        ("M 0 0 C 1 1 2 2 3 3 Z", "command 'C' is not one of"),
        ("M 0 0 l 1 1 Z", "command 'l' is not one of"),
        ("M 0 nan Z", "position 0: M needs pairs of numbers and has 1"),
        ("M 0 0 # Z", "position 5: ' # Z' is not path data"),
    ],
)
def test_broken_text_is_refused_at_its_position(text, message):
    with pytest.raises(UserError, match=message):
        parse_polygons(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="MLZml 0159.,-eé\n", max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        polygons = parse_polygons(text)
    except UserError:
        return
    assert all(np.isfinite(polygon).all() and len(polygon) for polygon in polygons)


def test_document_draws_at_the_right_place():
    """A box centred at (.3, .4), half and quarter wide: pixels 2..21 across and 22..41 down of 80 x 80."""
    document = svg_document("M 0 0 L 1 0 L 1 1 L 0 1 Z", (0.15, 0.4, 0.25, 0.25), width=80, height=80)
    pixels = np.asarray(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document)))))
    rows, columns = np.nonzero(pixels[..., 3])
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (2, 21, 22, 41)


def test_document_escapes_what_it_is_given():
    document = svg_document("M 0 0 Z", (0.5, 0.5, 1, 1), width=4, height=4, fill='"><script>', image_href='a"&<b')
    assert "<script>" not in document and 'href="a&quot;&amp;&lt;b"' in document


@pytest.mark.skipif("MOONSEG_FIXTURES" not in os.environ, reason="MOONSEG_FIXTURES is not set")
def test_documents_equal_the_official_ones():
    file = Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3" / "helpers" / "helpers.json"
    cases = [case for case in json.loads(file.read_text())["render"] if set(case["path"]) <= set("MLZ 0123456789.-")]
    assert len(cases) >= 1
    for case in cases:
        ours = svg_document(case["path"], case["bbox_cxcywh"], width=case["width"], height=case["height"])
        assert ours.replace(".0,", ",").replace(".0)", ")") == case["svg"].replace(".0,", ",").replace(".0)", ")")


@pytest.mark.parametrize("explicit", [False, True])
def test_tokens_are_read_back_as_the_polygons_they_were_written_from(explicit):
    target = encode_target(
        smooth_shapes()["ring"],
        vocabulary=VOCABULARY,
        paths=CONFIG.paths,
        region=CONFIG.region,
        explicit=explicit,
    )
    outer, hole = polygons_from_tokens(target.token_ids, VOCABULARY)
    assert outer.min() <= 15 and outer.max() >= 945
    assert 0 < hole.min() and hole.max() < 960
    written = " ".join(VOCABULARY.tokenizer.id_to_token(int(token)) for token in target.token_ids[3:-1])
    parsed = parse_polygons(written)
    np.testing.assert_array_equal(parsed[0], outer)
    np.testing.assert_array_equal(parsed[1], hole)


def test_an_odd_number_is_dropped_and_a_start_is_required():
    word = VOCABULARY.tokenizer.token_to_id
    triangle = [word(text) for text in "M 0 0 960 0 960 480 30 Z".split()]
    (polygon,) = polygons_from_tokens(triangle, VOCABULARY)
    assert polygon.tolist() == [[0, 0], [960, 0], [960, 480]]
    assert polygons_from_tokens([word("0"), word("30"), *triangle], VOCABULARY) == []
