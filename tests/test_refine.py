"""Refinement at inference: rectangles, pasting, statuses."""

import json
import os
import pathlib

import numpy as np
import pytest
from tiny_models import micro_policy

from moonseg_jax.refine import EMPTY_COARSE, EMPTY_CROP, EMPTY_RESULT, REFINED, Refiner, pixel_rectangle

SIDE = 48


@pytest.fixture
def fixtures() -> pathlib.Path:
    if "MOONSEG_FIXTURES" not in os.environ:
        pytest.skip("MOONSEG_FIXTURES does not name the folder of official outputs")
    return pathlib.Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3"


def box_of(corners):
    x0, y0, x1, y1 = (corners[name] for name in ("x_min", "y_min", "x_max", "y_max"))
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])


def test_rectangles_are_the_official_ones(fixtures):
    cases = json.loads((fixtures / "helpers/helpers.json").read_text())["expand_bbox"]
    got = [list(pixel_rectangle(box_of(case["bbox"]), case["h"], case["w"])) for case in cases]
    assert got == [case["out"] for case in cases]


@pytest.mark.parametrize("seed", [0, 1])
def test_rectangle_of_the_official_pipeline(fixtures, seed):
    folder = fixtures / f"A_seed{seed}"
    case = json.loads((folder / "config.json").read_text())["refiner_case"]
    height, width = np.load(folder / "inputs.npz")["pipe/coarse_mask"].shape
    expected = np.load(folder / "expected.npz")["pipe/crop_xyxy"]
    assert list(pixel_rectangle(box_of(case["bbox"]), height, width)) == expected.tolist()


def test_rectangle_grows_by_a_quarter_and_stays_inside():
    assert pixel_rectangle(np.array([0.5, 0.5, 0.4, 0.2]), 100, 200) == (40, 35, 160, 65)
    assert pixel_rectangle(np.array([0.1, 0.9, 0.2, 0.4]), 100, 200) == (0, 62, 50, 100)


def refiner_with(improve) -> Refiner:
    """A refiner of batches of two whose network is replaced by a function of crops and masks."""
    refiner = Refiner(micro_policy(), None, None, batch=2)
    refiner._run = lambda policy, head, crops, masks: (improve(crops, masks), np.full(len(masks), 0.75))
    return refiner


def photo(value=0):
    return np.full((60, 80, 3), value, np.uint8)


def block(y0, y1, x0, x1):
    mask = np.zeros((60, 80), bool)
    mask[y0:y1, x0:x1] = True
    return mask


BOX = np.array([0.5, 0.5, 0.4, 0.4])
"""32 x 24 pixels around the centre; its crop is x 16..64, y 12..48."""


def test_every_mask_has_a_status_and_keeps_its_place():
    refiner = refiner_with(lambda crops, masks: np.where(crops[..., 0] == 9, 0.0, masks).astype(np.float32))
    coarse = [block(0, 0, 0, 0), block(20, 40, 30, 50), block(0, 5, 0, 5), block(20, 40, 30, 50), block(18, 42, 24, 56)]
    images = [photo(), photo(), photo(), photo(9), photo()]
    results = refiner.refine(images, [BOX] * 5, coarse)
    assert [result.status for result in results] == [EMPTY_COARSE, REFINED, EMPTY_CROP, EMPTY_RESULT, REFINED]
    for result, mask in zip(results, coarse):
        np.testing.assert_array_equal(result.mask, mask)
    assert [result.score for result in results] == pytest.approx([np.nan, 0.75, np.nan, np.nan, 0.75], nan_ok=True)


def test_the_network_sees_the_stretched_crop_and_its_answer_is_pasted_there():
    seen = {}

    def left_half(crops, masks):
        seen.update(crop=crops[0], mask=masks[0])
        answer = np.zeros_like(masks)
        answer[:, :, : SIDE // 2] = 1.0
        return answer

    image = photo()
    image[:, 40:] = 200
    result = refiner_with(left_half).refine([image], [BOX], [block(12, 30, 16, 64)])[0]
    np.testing.assert_array_equal(result.mask, block(12, 48, 16, 40))
    assert (seen["crop"][:, :23] == 0).all() and (seen["crop"][:, 25:] == 200).all()
    np.testing.assert_array_equal(seen["mask"], np.repeat(np.arange(SIDE) < 24, SIDE).reshape(SIDE, SIDE))


def test_answers_are_cleaned():
    def with_speck(crops, masks):
        answer = masks.copy()
        answer[:, :2, :2] = 1.0
        return answer

    coarse = block(20, 40, 30, 50)
    result = refiner_with(with_speck).refine([photo()], [BOX], [coarse])[0]
    np.testing.assert_array_equal(result.mask, coarse)


def test_a_box_without_pixels_is_an_empty_crop():
    results = refiner_with(lambda crops, masks: masks).refine(
        [photo()] * 2, [np.zeros(4), np.array([1.4, 0.5, 0.2, 0.2])], [block(20, 40, 30, 50)] * 2
    )
    assert [result.status for result in results] == [EMPTY_CROP, EMPTY_CROP]


def test_the_head_can_be_exchanged():
    refiner = refiner_with(lambda crops, masks: masks)
    heads = []
    refiner._run = lambda policy, head, crops, masks: (heads.append(head), (masks, np.zeros(len(masks))))[1]
    for head in ("first", "second"):
        refiner.replace_head(head)
        refiner.refine([photo()], [BOX], [block(20, 40, 30, 50)])
    assert heads == ["first", "second"]
