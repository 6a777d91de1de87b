"""Errors of a policy's samples: measured on outlines whose errors are known, and put into other outlines."""

import numpy as np
import pytest

from moonseg_jax.baselines import mask_iou
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Prediction
from moonseg_jax.refiner_evidence import outline_errors
from moonseg_jax.refiner_evidence.outline_errors import OutlineErrors, errors_of, rough_outline
from moonseg_jax.types import Example

SIDE = 100
SQUARE = np.zeros((SIDE, SIDE), bool)
SQUARE[20:60, 20:60] = True
CORNERS = np.array([[0.2, 0.2], [0.6, 0.2], [0.6, 0.6], [0.2, 0.6]])
BOX = np.array([0.4, 0.4, 0.4, 0.4])


@pytest.fixture(autouse=True)
def truth(monkeypatch):
    """The ground truth of every example is the square."""
    monkeypatch.setattr(outline_errors, "true_mask", lambda example: SQUARE)


def drawn(box, *polygons):
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    example = Example(image=image, phrase="", target=None, image_id=0, example_id=0)
    return Prediction(example=example, box=np.array(box), polygons=polygons, tokens=9)


def errors(shift=(0, 0), stretch=(0, 0), jitter=0.0, kept=1.0):
    return OutlineErrors(
        shift=np.array([shift], float), stretch=np.array([stretch], float), jitter=np.array([jitter]),
        kept=np.array([kept]),
    )  # fmt: skip


def test_a_right_outline_has_no_errors():
    found = errors_of([drawn(BOX, CORNERS)])
    assert found.medians() == pytest.approx({"shift": 0, "stretch": 0, "jitter": 0, "kept": 1}, abs=1e-9)


def test_errors_of_box_and_vertices_are_told_apart():
    box = BOX + np.array([0.04, -0.02, 0.4, 0])
    moved = box[:2] + (CORNERS - BOX[:2]) / BOX[2:] * box[2:]
    found = errors_of([drawn(box, moved)])
    assert found.shift[0] == pytest.approx([0.1, -0.05]) and found.stretch[0] == pytest.approx([np.log(2), 0])
    assert found.jitter[0] == pytest.approx(0, abs=1e-9)
    # Two corners moved along the edge they lie on; then a tenth of the box inside as well. A path without one corner.
    along = np.array([[0.04, 0], [-0.04, 0], [0, 0], [0, 0]])
    inside = along + np.array([[0, 0.04], [0, 0.04], [0, 0], [0, 0]])
    assert errors_of([drawn(BOX, CORNERS + along)]).jitter == pytest.approx([0], abs=1e-9)
    found = errors_of([drawn(BOX, CORNERS + inside), drawn(BOX, CORNERS[:3])])
    assert found.jitter == pytest.approx([np.sqrt((0.01 + 0.01) / 4), 0.0], abs=1e-9)
    assert found.kept == pytest.approx([1.0, 0.75])


def test_samples_that_miss_are_left_out_as_pairs_are():
    missed = drawn([0.8, 0.8, 0.2, 0.2], CORNERS / 4 + 0.65)
    assert len(errors_of([missed, drawn(BOX, CORNERS)]).jitter) == 1
    with pytest.raises(UserError, match="none of 2 samples of the policy overlaps its object"):
        errors_of([missed, missed])


def test_an_outline_takes_the_errors_it_is_given():
    same, box = rough_outline(SQUARE, errors(), np.random.default_rng(0))
    assert np.array_equal(same, SQUARE) and box == pytest.approx(BOX)
    mask, box = rough_outline(SQUARE, errors(shift=(0.25, 0), stretch=(0, np.log(0.5))), np.random.default_rng(0))
    expected = np.zeros_like(SQUARE)
    expected[30:50, 30:70] = True
    assert np.array_equal(mask, expected) and box == pytest.approx([0.5, 0.4, 0.4, 0.2])
    triangle, _ = rough_outline(SQUARE, errors(kept=0.2), np.random.default_rng(0))
    assert triangle.sum() == pytest.approx(SQUARE.sum() / 2, rel=0.06), "three of the four corners stay"


def test_jitter_is_the_distance_to_the_line_that_vertices_lay_on():
    corners = np.stack(np.meshgrid(np.linspace(0, 2 * np.pi, 24, endpoint=False)), -1)[:, 0]
    wheel = outline_errors.fill([50 + 35 * np.stack([np.cos(corners), np.sin(corners)], 1)], SIDE, SIDE)
    ious = {}
    for jitter in (0.01, 0.05):
        rng = np.random.default_rng(0)
        masks = [rough_outline(wheel, errors(jitter=jitter), rng)[0] for _ in range(20)]
        ious[jitter] = np.mean([mask_iou(mask, wheel) for mask in masks])
    assert 0.95 < ious[0.01] < 1 and ious[0.05] < ious[0.01] - 0.05
    edge = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    points = np.stack([np.full(4000, 0.5), np.random.default_rng(0).normal(0, 0.05, 4000)], 1)
    assert np.sqrt(np.mean(outline_errors._distances(points, [edge]) ** 2)) == pytest.approx(0.05, rel=0.05)
