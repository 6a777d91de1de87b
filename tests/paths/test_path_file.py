"""Path files: what is written is read back, and what is no path gets one clear error."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import resvg_py
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_samples import corner_cases, smooth_shapes
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.mask_path import path_of_mask
from moonseg_jax.paths.path_file import json_of_path, path_from_json, read_path, write_path
from moonseg_jax.paths.placed_path import PlacedPath, commands_of_text
from moonseg_jax.paths.svg_file import FILL_OPACITY, path_from_svg, svg_of_path

BOX = (0.4, 0.55, 0.5, 0.25)
EVERY_COMMAND = (
    "M10 20L30-4.5 60 7l1 2H500V3e2h-10v.5C1,2 3,4 5,6s7 8 9 10Q1 2 3 4t5 6T7 8S1 2 3 4c1 2 3 4 5 6q1 2 3 4"
    "A30 20 15 0190.5.5a5 5 0 1 0 7 7z m5 5 4 4 0 4Z"
)


def path_of(text: str, box=BOX, rule="nonzero") -> PlacedPath:
    commands, numbers = commands_of_text(text)
    return PlacedPath(box=box, commands=commands, numbers=numbers, rule=rule)


def document(body: str, view_box: str = "0 0 40 20") -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box}">{body}</svg>'


@pytest.mark.parametrize("rule", ["nonzero", "evenodd"])
def test_json_gives_every_command_back_exactly(rule):
    path = path_of(EVERY_COMMAND, rule=rule)
    content = json.loads(json_of_path(path))
    assert content["box"] == dict(zip(("cx", "cy", "w", "h"), BOX)) and content["units"] == 960
    assert content["commands"][:3] == ["M", "L", "l"] and content["numbers"][1] == [30, -4.5, 60, 7]
    assert path_from_json(json_of_path(path)) == path


@pytest.mark.parametrize("rule", ["nonzero", "evenodd"])
def test_svg_gives_commands_back_exactly_and_the_box_to_rounding(rule):
    path = path_of(EVERY_COMMAND, rule=rule)
    back = path_from_svg(svg_of_path(path, height=480, width=640, photo='a"&<.png'))
    assert (back.commands, back.numbers, back.rule) == (path.commands, path.numbers, rule)
    assert back.box == pytest.approx(BOX, abs=1e-14)


def test_arcs_with_their_flags_run_together_are_split():
    assert commands_of_text("M0 0A30 20 15 0190.5.5") == (("M", "A"), ((0, 0), (30, 20, 15, 0, 1, 90.5, 0.5)))


@pytest.mark.parametrize("arc", ["1e9 1e9 1e9 0 1 1e-200 0", "0.3 -5 -1e9 0 0 1e-160 1e-160"])
def test_arcs_beyond_all_measure_are_refused(arc):
    with pytest.raises(UserError, match="no ellipse joins"):
        path_of(f"M0 0 A {arc}")


def test_the_document_draws_the_mask_at_its_place_over_the_photo():
    """resvg's picture: where the path lies the photo is tinted, elsewhere it is untouched."""
    mask = np.zeros((60, 100), bool)
    mask[20:40, 50:90] = True
    mask[25:35, 60:80] = False
    path = path_of_mask(mask, tolerance=0.5, max_subpaths=9).path
    picture = np.asarray(_drawn(svg_of_path(path, height=60, width=100)))
    np.testing.assert_array_equal(picture[..., 3] > 0, mask)
    assert set(np.unique(picture[..., 3])) <= {0, round(255 * FILL_OPACITY), int(255 * FILL_OPACITY)}


def _drawn(svg: str) -> Image.Image:
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg)))).convert("RGBA")


def test_absolute_paths_in_pixels_and_groups_are_placed_by_the_view_box():
    plain = path_from_svg(document('<title>t</title><path fill-rule="evenodd" d="M10,5H20V15H10Z"/>'))
    assert plain.rule == "evenodd"
    np.testing.assert_allclose(plain.polygons(20, 40)[0], [(10, 5), (20, 5), (20, 15), (10, 15), (10, 5)])
    moved = document(
        '<g transform="translate(10)"><g transform="matrix(2 0 0 3 1 1),scale(.5)"><path d="M0 0H4V4Z"/></g></g>'
    )
    np.testing.assert_allclose(path_from_svg(moved).polygons(20, 40)[0], [(11, 1), (15, 1), (15, 7), (11, 1)])
    shifted = path_from_svg(document('<path d="M10 5h10v10Z"/>', view_box="10,5 20 10"))
    np.testing.assert_allclose(shifted.polygons(100, 100)[0], [(0, 0), (50, 0), (50, 100), (0, 0)])


def test_answers_of_segment_are_read(tmp_path):
    answer = {"path": "M 0 0 L 1 0 L 1 .5 Z", "drawn_box": {"cx": 0.5, "cy": 0.5, "w": 0.5, "h": 1}, "bbox": {}}
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(answer))
    np.testing.assert_allclose(read_path(file).polygons(10, 20)[0], [(5, 0), (15, 0), (15, 5), (5, 0)], atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"box": None}, "field box: give cx, cy, w and h"),
        ({"box": {"cx": 0, "cy": 0, "w": 1}}, "field box: give cx, cy, w and h"),
        ({"box": {"cx": float("nan"), "cy": 0, "w": 1, "h": 1}}, "give finite cx, cy, w, h"),
        ({"box": {"cx": 0, "cy": float("inf"), "w": 1, "h": 1}}, "field box: inf is no finite number"),
        ({"box": {"cx": 0, "cy": 0, "w": -1, "h": 1}}, "w and h of at least 0"),
        ({"box": {"cx": "a", "cy": 0, "w": 1, "h": 1}}, "field box: 'a' is no finite number"),
        ({"commands": None}, "field commands is missing"),
        ({"commands": [7, "L", "Z"]}, "field commands: give letters"),
        ({"commands": ["M", "X", "Z"]}, "command 1: 'X' is no letter"),
        ({"commands": ["L", "L", "Z"]}, "command 0: 'L' comes before the first M"),
        ({"commands": ["M", "L"]}, "2 commands and 3 lists of numbers"),
        ({"numbers": [[0, 0], [960], []]}, "command 1: L takes 2 numbers at a time and has 1"),
        ({"numbers": [[0, 0], [], []]}, "command 1: L takes 2 numbers at a time and has 0"),
        ({"numbers": [[0, 0], [1, 2], [3]]}, "command 2: Z takes 0 numbers"),
        ({"numbers": [[0, 0], [1, True], []]}, "field numbers: True is no finite number"),
        ({"numbers": [[0, 0], [1, 10**400], []]}, "is no finite number"),
        ({"numbers": [[0, 0], [1, float("nan")], []]}, "not finite"),
        ({"numbers": [0, 0, 0]}, "field numbers: give a list of numbers for every command"),
        ({"numbers": [[0, 0], [1e8, 0], []]}, "image sides away; the limit is 100"),
        ({"units": 1000}, "field units: 1000, but the box has 960 units"),
        ({"rule": "odd"}, "field rule: 'odd' is neither"),
    ],
)
def test_json_that_is_no_path_is_refused_by_field(tmp_path, changes, said):
    content = {
        "box": {"cx": 0.5, "cy": 0.5, "w": 1, "h": 1},
        "commands": ["M", "L", "Z"],
        "numbers": [[0, 0], [960, 0, 0, 960], []],
    }
    file = tmp_path / "path.json"
    file.write_text(json.dumps({**content, **changes}))
    with pytest.raises(UserError, match=said) as caught:
        read_path(file)
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not an SVG document"),
        ("<svg", "not an SVG document"),
        ("<html/>", "its root is <html>"),
        ('<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>', "declares a document type or entities"),
        ("<svg><path d='M0 0'/></svg>", "viewBox '': give 4 numbers"),
        (document("", view_box="0 0 0 9"), "width and height must be more than 0"),
        (document("", view_box="0 0 nan 9"), "give 4 numbers"),
        (document(""), "the SVG has 0 paths"),
        (document('<path d="M0 0"/><path d="M0 0"/>'), "the SVG has 2 paths; join them"),
        (document('<rect width="3" height="3"/>'), "<rect> is not read"),
        (document('<g style="fill-rule:evenodd"/>'), "<g>: the attribute style is not read"),
        (document('<path d="M0 0" fill-rule="odd"/>'), "fill-rule 'odd' is neither"),
        (document('<path d="M0 0" transform="rotate(9)"/>'), "transform: rotate is not read"),
        (document('<path d="M0 0" transform="scale(1,-1)"/>'), "w and h of at least 0"),
        (document('<path d="M0 0" transform="matrix(1 1 0 1 0 0)"/>'), "turns or slants"),
        (document('<path d="M0 0" transform="scale(1 2"/>'), "cannot be read"),
        (document('<path d="7 M0 0"/>'), "position 0: '7 M0 0' comes before any command"),
        (document('<path d="M0 0 L 1 one"/>'), "position 8: ' one' is no number of L"),
        (document('<path d="M0 0 L 1"/>'), "command 1: L takes 2 numbers"),
        (document('<path d="M0 0 L 1 NaN"/>'), "is no number of L"),
    ],
)
def test_svg_that_is_no_path_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        path_from_svg(text)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.txt: the name of a path file must end in \.json or \.svg"):
        read_path(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"a\.json cannot be read: No such file"):
        read_path(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.json is not UTF-8 text"):
        read_path(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="not JSON"):
        read_path(tmp_path / "a.json")
    with pytest.raises(UserError, match="cannot be written"):
        write_path(path_of("M0 0"), tmp_path / "gone" / "a.svg", height=3, width=3)


NAMES = [*corner_cases(), *smooth_shapes()]


@pytest.mark.parametrize("name", NAMES)
def test_paths_of_masks_are_the_same_from_both_kinds_of_file(tmp_path, name):
    mask = {**corner_cases(), **smooth_shapes()}[name]
    path = path_of_mask(mask, tolerance=0.5, max_subpaths=256).path
    height, width = mask.shape
    drawn = {}
    for kind in (".json", ".svg"):
        write_path(path, tmp_path / f"a{kind}", height=height, width=width)
        drawn[kind] = fill(read_path(tmp_path / f"a{kind}").polygons(height, width), height, width)
    np.testing.assert_array_equal(drawn[".json"], fill(path.polygons(height, width), height, width))
    assert np.count_nonzero(drawn[".json"] != drawn[".svg"]) == 0


words = st.sampled_from(
    [*"MLCQSTZHVAmlcqstzhvaXe", "-", "0", "1", "960", "-5.5", "1e3", "1e-300", "9" * 12, ",", ".", " "]
)
values = st.one_of(st.floats(), st.integers(), st.sampled_from([None, True, "1", [], {}]))


@settings(max_examples=2000, deadline=None)
@given(st.lists(words, max_size=24).map(" ".join), st.tuples(*[st.floats(-2, 2)] * 4))
def test_any_text_is_drawn_or_refused(text, box):
    try:
        path = path_of("M 0 0 " + text, box=box)
    except UserError:
        return
    for polygon in path.polygons(20, 30):
        assert np.isfinite(polygon).all()
    assert path_from_json(json_of_path(path)) == path


@settings(max_examples=1500, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["cx", "cy", "w", "h"]), values),
    st.one_of(values, st.lists(st.one_of(words, values), max_size=4)),
    st.one_of(values, st.lists(st.one_of(values, st.lists(values, max_size=4)), max_size=4)),
)
def test_any_json_is_a_path_or_refused(box, commands, numbers):
    try:
        path = path_from_json(json.dumps({"box": box, "commands": commands, "numbers": numbers}))
    except UserError:
        return
    assert all(np.isfinite(polygon).all() for polygon in path.polygons(20, 30))
