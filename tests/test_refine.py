"""Refinement at inference: rectangles, pasting, statuses."""

import dataclasses
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import compile_quickly, micro, micro_params, micro_policy

from moonseg_jax import refine as refine_module
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Prediction
from moonseg_jax.model.refiner import init_head, make_head
from moonseg_jax.refine import (
    Refined,
    Refiner,
    encode_and_refine,
    guarded,
    improve_crops,
    pixel_rectangle,
    refine_predictions,
)
from moonseg_jax.refine_memory import bytes_per_crop, require_memory
from moonseg_jax.status import BAD_BOX, EMPTY_COARSE, EMPTY_CROP, EMPTY_PATH, EMPTY_RESULT, KEPT, NOT_ASKED, REFINED
from moonseg_jax.types import Example

SIDE = 48
ITERATIONS = 2


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


def test_the_guard_keeps_a_mask_that_agrees_as_well_as_the_head_expects_the_truth_to():
    coarse, refined = block(20, 40, 30, 50), block(20, 40, 30, 46)
    agreement = 16 / 20
    kept = guarded(Refined(mask=refined, status=REFINED, score=agreement), coarse)
    np.testing.assert_array_equal(kept.mask, coarse)
    assert (kept.status, kept.score) == (KEPT, agreement)
    surer = Refined(mask=refined, status=REFINED, score=agreement + 1e-6)
    assert guarded(surer, coarse) is surer
    failed = Refined(mask=coarse, status=EMPTY_RESULT, score=float("nan"))
    assert guarded(failed, coarse) is failed


@pytest.mark.parametrize(("guard", "status", "right"), [(False, REFINED, 46), (True, KEPT, 50)])
def test_a_guarded_refiner_answers_with_the_coarse_mask(guard, status, right):
    def narrower(crops, masks):
        answer = masks.copy()
        answer[:, :, 30:] = 0.0
        return answer

    refiner = refiner_with(narrower)
    refiner.guard = guard
    result = refiner.refine([photo()], [BOX], [block(20, 40, 30, 50)])[0]
    np.testing.assert_array_equal(result.mask, block(20, 40, 30, right))
    assert result.status == status


def test_a_box_without_pixels_is_an_empty_crop():
    results = refiner_with(lambda crops, masks: masks).refine(
        [photo()] * 2, [np.zeros(4), np.array([1.4, 0.5, 0.2, 0.2])], [block(20, 40, 30, 50)] * 2
    )
    assert [result.status for result in results] == [EMPTY_CROP, EMPTY_CROP]


def test_the_head_can_be_exchanged():
    refiner = refiner_with(lambda crops, masks: masks)
    heads = []
    refiner._run = lambda policy, head, crops, masks: (heads.append(int(head)), (masks, np.zeros(len(masks))))[1]
    for head in (1, 2):
        refiner.replace_head(np.int32(head))
        refiner.refine([photo()], [BOX], [block(20, 40, 30, 50)])
    assert heads == [1, 2]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("place", range(4))
def test_boxes_that_are_not_finite_are_told(wrong, place):
    box, coarse = BOX.copy(), block(20, 40, 30, 50)
    box[place] = wrong
    result = refiner_with(lambda crops, masks: masks).refine([photo()], [box], [coarse])[0]
    assert result.status == BAD_BOX and np.isnan(result.score)
    np.testing.assert_array_equal(result.mask, coarse)


@pytest.mark.parametrize("box", [(5.0, 0.5, 0.2, 0.2), (0.5, -3.0, 0.2, 0.2), (-1.0, -1.0, 0.1, 0.1)])
def test_boxes_outside_the_image_meet_no_mask(box):
    result = refiner_with(lambda crops, masks: masks).refine([photo()], [np.array(box)], [block(20, 40, 30, 50)])[0]
    assert result.status == EMPTY_CROP


def test_a_box_of_one_pixel_is_refined_inside_its_crop():
    box = np.array([40.5 / 80, 30.5 / 60, 1 / 80, 1 / 60])
    coarse = block(30, 31, 40, 41)
    assert pixel_rectangle(box, 60, 80) == (39, 29, 41, 31)
    result = refiner_with(lambda crops, masks: np.ones_like(masks)).refine([photo()], [box], [coarse])[0]
    assert result.status == REFINED and result.mask.sum() == 4 and result.mask[29:31, 39:41].all()


@pytest.mark.parametrize("shape", [(1, 70), (70, 1)])
def test_images_of_a_single_row_or_column_are_refined(shape):
    image, coarse = np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
    coarse.reshape(-1)[20:40] = True
    result = refiner_with(lambda crops, masks: masks).refine([image], [np.array([0.5, 0.5, 1.0, 1.0])], [coarse])[0]
    assert result.status == REFINED and (result.mask != coarse).sum() <= 1, "resampled from 70 pixels to 48 and back"


def drawn(mask, *, polygons=1):
    """A prediction whose mask is this one."""
    example = Example(image=np.zeros((*mask.shape, 3), np.uint8), phrase="", target=None, image_id=0, example_id=0)
    subpaths = (np.zeros((3, 2)),) * polygons
    prediction = Prediction(example=example, box=BOX, polygons=subpaths, tokens=9)
    object.__setattr__(prediction, "mask", lambda: mask)
    return prediction


def test_predictions_end_in_one_of_the_statuses():
    predictions = [drawn(block(20, 40, 30, 50)), drawn(block(0, 0, 0, 0)), drawn(block(0, 0, 0, 0), polygons=0)]
    refined = refine_predictions(refiner_with(lambda crops, masks: masks), predictions)
    assert [one.status for one in refined] == [REFINED, EMPTY_COARSE, EMPTY_PATH]
    coarse = refine_predictions(None, predictions)
    assert [one.status for one in coarse] == [NOT_ASKED, EMPTY_COARSE, EMPTY_PATH]


@pytest.fixture(scope="module")
def problem():
    """Micro weights, crops and coarse masks."""
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    coarse = (rng.random((3, SIDE, SIDE)) > 0.5).astype(np.float32)
    head = make_head(micro())
    head = head.clone(config=dataclasses.replace(head.config, iterations=ITERATIONS))
    return head, micro_params(), init_head(head, micro().vision.width, 3), crops, coarse


def test_inference_gives_the_mask_that_the_loop_ends_with(problem):
    """The loop draws all candidates; inference draws the best one only, in forms that suit a CPU."""
    head, params, head_params, crops, coarse = problem
    model = micro_policy().model

    def both(params, head_params, crops, coarse):
        inputs = (params, head_params, crops, coarse)
        return encode_and_refine(model, head, *inputs)[2], improve_crops(model, head, ITERATIONS, *inputs)

    inputs = (params, head_params, crops, coarse)
    loop, (masks, scores) = jax.device_get(compile_quickly(jax.jit(both), *inputs)(*inputs))
    np.testing.assert_allclose(masks, loop.masks[-1], atol=2e-5)
    np.testing.assert_allclose(scores, loop.iou[-1].max(axis=1), atol=2e-5)
    assert np.abs(masks - loop.masks[0]).max() > 1e-3, "another number of iterations gives another mask"


def test_the_number_of_iterations_is_the_models_unless_another_is_given(monkeypatch):
    def improve(model, head, iterations, model_params, head_params, crops, coarse):
        return coarse, jnp.full(len(coarse), iterations)

    monkeypatch.setattr(refine_module, "improve_crops", improve)
    for given, used in ((None, 5), (3, 3)):
        refiner = Refiner(micro_policy(), None, None, batch=2, iterations=given)
        assert refiner.iterations == used
        assert refiner.refine([photo()], [BOX], [block(20, 40, 30, 50)])[0].score == used


@pytest.mark.usefixtures("quick_compiling")
def test_any_number_of_crops_of_images_of_any_size_run_one_program(problem):
    _, params, head_params, _, _ = problem
    refiner = Refiner(micro_policy(), params, head_params, batch=2, iterations=1)
    shapes = [(60, 80), (33, 20), (100, 7), (60, 80), (12, 50)]
    images = [np.full((*shape, 3), 40 * i, np.uint8) for i, shape in enumerate(shapes)]
    masks = [np.ones(shape, bool) for shape in shapes]
    together = refiner.refine(images, [BOX] * 5, masks)
    one_by_one = [refiner.refine([image], [BOX], [mask])[0] for image, mask in zip(images, masks)]
    assert refiner._run._cache_size() == 1
    for a, b in zip(together, one_by_one):
        assert a.status == b.status and a.score == pytest.approx(b.score, abs=1e-5, nan_ok=True)
        assert (a.mask != b.mask).mean() < 0.01


def test_batches_that_do_not_fit_are_refused_with_the_one_that_does(monkeypatch):
    config, head = micro(), make_head(micro())
    each = bytes_per_crop(config, head)
    require_memory(config, head, 4, parameters=100, available=4 * each + 100)
    with pytest.raises(UserError, match=r"refining 4 crops of 48 px.*a batch of 3 fits: set --refine-batch 3"):
        require_memory(config, head, 4, parameters=101, available=4 * each + 100)
    with pytest.raises(UserError, match="not even one crop fits"):
        require_memory(config, head, 1, parameters=0, available=each - 1)
    monkeypatch.setattr(refine_module, "device_memory", lambda: 1)
    refiner = refiner_with(lambda crops, masks: masks)
    with pytest.raises(UserError, match="refining 2 crops"):
        refiner.refine([photo()], [BOX], [block(20, 40, 30, 50)])
    assert refiner.refine([photo()], [BOX], [block(0, 0, 0, 0)])[0].status == EMPTY_COARSE


def test_memory_per_crop_is_near_what_the_compiler_says(problem):
    head, params, head_params, crops, coarse = problem
    model = micro_policy().model

    def improve(*inputs):
        return improve_crops(model, head, 1, *inputs)

    used = []
    for batch in (3, 9):
        inputs = (params, head_params, np.tile(crops, (batch // 3, 1, 1, 1)), np.tile(coarse, (batch // 3, 1, 1)))
        used.append(compile_quickly(jax.jit(improve), *inputs).memory_analysis().temp_size_in_bytes)
    per_crop = (used[1] - used[0]) / 6
    assert per_crop < 1.2 * bytes_per_crop(micro(), head) < 4 * per_crop


@pytest.mark.parametrize(("settings", "message"), [({"batch": 0}, "batch must be"), ({"iterations": 0}, "1 iteration")])
def test_counts_that_leave_nothing_to_do_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Refiner(micro_policy(), None, None, **settings)
