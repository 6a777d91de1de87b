"""Our code around the model against the official outputs: text, boxes, images, masks and traced paths."""

import json
import os
import pathlib
import re

import numpy as np
import pytest
from run_helpers import run_helpers

from moonseg_jax.paths.engine.path_data import read_path_data
from moonseg_jax.paths.engine.render import coarse_mask, render_path

if "MOONSEG_FIXTURES" not in os.environ:
    pytest.skip("MOONSEG_FIXTURES does not name the folder of official outputs", allow_module_level=True)

FOLDER = pathlib.Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3" / "helpers"
OFFICIAL = json.loads((FOLDER / "helpers.json").read_text())
OFFICIAL_ARRAYS = dict(np.load(FOLDER / "expected.npz"))

GREY_LEVELS = 2
"""What our Lanczos may differ from the engine's closed one (specification §3.5)."""

TRACE = re.compile(r"(M{p}(L{p}|C{p},{p},{p})+z)+".replace("{p}", r"-?\d?\.\d{3},-?\d?\.\d{3}"))
"""Compact path text with three decimals, every subpath closed."""


@pytest.fixture(scope="module")
def ours():
    return run_helpers(FOLDER)


def cases(group: str) -> list:
    """One parameter per recorded case of a list, named by what it is about."""
    names = []
    for index, case in enumerate(OFFICIAL[group]):
        names.append(pytest.param(index, id=f"{index}-{case.get('path') or case.get('error') or 'empty'}"[:40]))
    return names


def arrays(pattern: str) -> list[str]:
    """Names of official arrays."""
    return [name for name in OFFICIAL_ARRAYS if re.fullmatch(pattern, name)]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0


def test_every_official_output_is_made_but_those_out_of_scope(ours):
    records, made = ours
    assert set(OFFICIAL) - set(records) == {"topp"}
    assert all(re.fullmatch(r"crops\d/vips|topp/.*", name) for name in set(OFFICIAL_ARRAYS) - set(made))
    assert [len(records[name]) for name in records] == [len(OFFICIAL[name]) for name in records]


def test_tilings_are_the_official_ones(ours):
    assert ours[0]["select_tiling"] == OFFICIAL["select_tiling"]


@pytest.mark.parametrize("name", [name for name in OFFICIAL if re.match("crops|recon", name)])
def test_tilings_of_images_are_the_official_ones(ours, name):
    assert ours[0][name] == OFFICIAL[name]


@pytest.mark.parametrize("name", arrays("crops.*/kestrel_native"))
def test_crops_are_within_two_grey_levels_of_the_engine(ours, name):
    difference = np.abs(ours[1][name].astype(int) - OFFICIAL_ARRAYS[name])
    assert difference.max() <= GREY_LEVELS
    assert difference.mean() < 0.1


@pytest.mark.parametrize("name", arrays("crops.*/pil|recon.*/full|cv2/.*|clean.*|paste"))
def test_arrays_are_equal_to_the_last_bit(ours, name):
    np.testing.assert_array_equal(ours[1][name], OFFICIAL_ARRAYS[name])


@pytest.mark.parametrize("name", arrays("recon.*/pooled|act/.*"))
def test_arrays_are_equal_to_float32_round_off(ours, name):
    np.testing.assert_allclose(ours[1][name], OFFICIAL_ARRAYS[name], atol=1e-6)


@pytest.mark.parametrize("index", cases("svg"))
def test_path_text_is_the_official_one_step_by_step(ours, index):
    assert ours[0]["svg"][index] == OFFICIAL["svg"][index]


@pytest.mark.parametrize("group", ["format_number", "chunks", "finalize", "build_bbox", "expand_bbox"])
def test_texts_and_integers_are_the_official_ones(ours, group):
    assert ours[0][group] == OFFICIAL[group]


@pytest.mark.parametrize("index", cases("render"))
def test_rendering_is_the_official_one(ours, index):
    assert ours[0]["render"][index] == OFFICIAL["render"][index]
    key = OFFICIAL["render"][index]["key"]
    soft, official = ours[1][key], OFFICIAL_ARRAYS[key]
    np.testing.assert_allclose(soft, official, atol=0.05)
    assert iou(coarse_mask(soft), official > 0.5) >= 0.99


TRACINGS = [
    pytest.param(index, kind, id=f"{case.get('mask') or case['name']}-{kind}")
    for index, case in enumerate(OFFICIAL["trace"])
    for kind in ("raw", "cleaned")
    if kind in case
]


@pytest.mark.parametrize(("index", "kind"), TRACINGS)
def test_traced_paths_draw_the_official_mask(ours, index, kind):
    got, official = ours[0]["trace"][index][kind], OFFICIAL["trace"][index][kind]
    if official is None:
        assert got is None
        return
    assert got["bbox"] == official["bbox"]
    assert TRACE.fullmatch(got["path"]) and read_path_data(got["path"]).error is None
    assert got["path"].count("z") == official["path"].count("z")
    for height, width in ((60, 80), (200, 150)):
        drawn = [coarse_mask(render_path(path["path"], (0.5, 0.5, 1, 1), height, width)) for path in (got, official)]
        assert iou(*drawn) >= 0.98


@pytest.mark.parametrize(("index", "kind"), TRACINGS)
def test_most_traced_subpaths_are_the_official_ones_to_a_thousandth(ours, index, kind):
    """Where rounding decides between two equally good curves, another one may be taken."""
    got, official = ours[0]["trace"][index][kind], OFFICIAL["trace"][index][kind]
    if official is not None:
        ours_split, official_split = (sorted(_near(path["path"])) for path in (got, official))
        equal = sum(subpath in official_split for subpath in ours_split)
        assert equal >= 0.8 * len(official_split)


def _near(path: str) -> list[str]:
    """Subpaths, with numbers that differ by their sign or last digit alone written alike."""
    return [
        re.sub(r"-?\d?\.\d{3}", lambda number: f"{float(number[0]) + 0.0:.2f} ".replace("-0.00", "0.00"), subpath)
        for subpath in path.split("z")[:-1]
    ]
