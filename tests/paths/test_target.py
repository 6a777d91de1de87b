"""Traced targets: proper completions that draw their mask."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from mask_samples import blob, corner_cases, smooth_shapes
from pycocotools import mask as coco_mask
from strict_parser import is_accepted

from moonseg_jax.config import small, tiny
from moonseg_jax.paths.boxes import coordinate_from_bin, size_from_bin
from moonseg_jax.paths.fill import fill
from moonseg_jax.paths.target import TracedTarget, encode_target
from moonseg_jax.paths.trace import signed_area
from moonseg_jax.paths.vocabulary import Vocabulary

CONFIG = dataclasses.replace(
    tiny(),
    region=dataclasses.replace(tiny().region, coord_bins=128),
    paths=dataclasses.replace(
        tiny().paths, max_new_tokens=48, trace_tolerance=0.7, tokenizer="embedded:small", coordinate_step=15
    ),
)
VOCABULARY = Vocabulary.from_config(CONFIG.paths)
SMOOTH = smooth_shapes()
CORNERS = corner_cases()


def encode(mask, config=CONFIG, vocabulary=VOCABULARY, **options) -> TracedTarget:
    return encode_target(mask, vocabulary=vocabulary, paths=config.paths, region=config.region, **options)


def polygons_of(target: TracedTarget) -> list[np.ndarray]:
    """Polygons in the 960-unit box, read word by word."""
    words = [VOCABULARY.tokenizer.id_to_token(int(token)) for token in target.token_ids[3:-1]]
    subpaths = [piece.split() for piece in " ".join(words).replace("L ", "").split("M ")[1:]]
    return [np.array(piece[:-1], int).reshape(-1, 2) for piece in subpaths]


def redraw(target: TracedTarget, height: int, width: int) -> np.ndarray:
    """The mask a target's tokens and bins draw, worked out from the definition."""
    (cx, cy), (w, h) = (
        coordinate_from_bin(target.bins[:2, 0], CONFIG.region),
        size_from_bin(target.bins[2], CONFIG.region),
    )
    polygons = [
        (np.array([cx - w / 2, cy - h / 2]) + polygon / 960 * np.array([w, h])) * np.array([width, height])
        for polygon in polygons_of(target)
    ]
    return fill(polygons, height, width)


@pytest.mark.parametrize("explicit", [False, True])
def test_targets_are_proper_completions_within_the_budget(explicit):
    rng = np.random.default_rng(0)
    for mask in [*SMOOTH.values(), *CORNERS.values(), *(blob(rng) for _ in range(40))]:
        target = encode(mask, explicit=explicit)
        assert len(target.token_ids) <= CONFIG.paths.max_new_tokens
        assert is_accepted(target.token_ids.tolist(), VOCABULARY, CONFIG.paths, explicit=explicit)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_shapes_are_drawn_to_their_ceiling(name):
    target = encode(SMOOTH[name])
    assert target.iou >= {"ring": 0.94, "two dots": 0.95}.get(name, 0.96)
    assert target.dropped_area == 0


def test_reported_iou_is_the_iou_of_what_the_tokens_draw():
    rng = np.random.default_rng(1)
    for mask in [*SMOOTH.values(), *CORNERS.values(), *(blob(rng) for _ in range(10))]:
        target = encode(mask)
        drawn = redraw(target, *mask.shape)
        assert target.iou == pytest.approx((drawn & mask).sum() / (drawn | mask).sum(), abs=2e-3)


def test_box_is_tight_up_to_its_bins():
    mask = np.zeros((96, 96), bool)
    mask[30:50, 20:60] = True
    cx, cy, w, h = encode(mask).box
    assert (cx, cy) == pytest.approx((40 / 96, 40 / 96), abs=0.5 / 127)
    assert 40 / 96 <= w <= 40 / 96 * 1.13 and 20 / 96 <= h <= 20 / 96 * 1.13


def test_quantisation_of_the_box_costs_nothing():
    """With one size bin in eight the box is far off, the drawn mask is not."""
    coarse = dataclasses.replace(CONFIG.region, size_bins=17)
    for name in ("disc", "ellipse", "bar"):
        target = encode_target(SMOOTH[name], vocabulary=VOCABULARY, paths=CONFIG.paths, region=coarse)
        assert target.iou >= 0.95


def test_canonical_start_and_direction():
    outer, hole = polygons_of(encode(SMOOTH["ring"]))
    for polygon in (outer, hole):
        assert tuple(polygon[0][::-1]) == min(map(tuple, polygon[:, ::-1]))
    assert signed_area(outer) > 0 > signed_area(hole)


def test_parts_come_by_area():
    mask = np.zeros((96, 96), bool)
    mask[5:15, 5:15] = mask[40:70, 50:80] = mask[80:90, 10:40] = True
    areas = [signed_area(polygon) for polygon in polygons_of(encode(mask))]
    assert len(areas) == 3 and areas == sorted(areas, reverse=True)


def test_random_start_and_direction_draw_the_same_mask():
    rng = np.random.default_rng(3)
    canonical = encode(SMOOTH["ring"])
    directions, starts = set(), set()
    for _ in range(20):
        target = encode(SMOOTH["ring"], rng=rng)
        outer, hole = polygons_of(target)
        assert np.sign(signed_area(outer)) == -np.sign(signed_area(hole))
        directions.add(np.sign(signed_area(outer)))
        starts.add(tuple(outer[0]))
        np.testing.assert_array_equal(redraw(target, 96, 96), redraw(canonical, 96, 96))
    assert directions == {-1, 1} and len(starts) > 5


def test_tolerance_is_raised_until_the_tokens_fit():
    mask = SMOOTH["ring"] | np.roll(SMOOTH["crescent"], (30, 45), axis=(0, 1))
    lengths = {}
    for budget in (24, 36, 48, 96):
        paths = dataclasses.replace(CONFIG.paths, max_new_tokens=budget)
        target = encode_target(mask, vocabulary=VOCABULARY, paths=paths, region=CONFIG.region)
        lengths[budget] = (len(target.token_ids), target.iou)
        assert len(target.token_ids) <= budget
    assert lengths[24][1] < lengths[48][1] < lengths[96][1]


def test_smallest_parts_are_dropped_when_nothing_else_helps():
    mask = np.zeros((96, 96), bool)
    mask[30:80, 30:80] = True
    for number in range(8):
        mask[4 : 8 + number, 10 * number + 4 : 10 * number + 8] = True
    target = encode(mask)
    areas = [abs(signed_area(polygon)) for polygon in polygons_of(target)]
    assert len(areas) == 4  # 44 tokens for rectangles of 10 tokens each
    assert target.dropped_area == 4 * (4 + 5 + 6 + 7 + 8)
    assert target.iou > 0.9


def test_noise_of_many_parts_is_drawn_as_far_as_the_budget_goes():
    """.657 with outlines kept in their coarsest form while others still shrink, .648 if they vanish."""
    rng = np.random.default_rng(0)
    assert np.mean([encode(blob(rng)).iou for _ in range(80)]) >= 0.653


@pytest.mark.parametrize("name", CORNERS)
def test_corner_cases_are_drawn(name):
    """One-pixel and full-frame masks come out whole; what does not fit the budget still has a path."""
    target = encode(CORNERS[name])
    least = {"one pixel": 0.99, "row": 0.99, "everything": 0.99}.get(name, 0.05)
    assert target.iou >= least and polygons_of(target)


@pytest.mark.parametrize("nothing", [None, np.zeros((9, 9), bool)])
def test_no_target_is_eos_alone(nothing):
    target = encode(nothing)
    assert target.token_ids.tolist() == [0] and target.bins.tolist() == [[0, 0]] and target.iou == 1.0


def test_run_length_encodings_are_read():
    mask = SMOOTH["crescent"]
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    np.testing.assert_array_equal(encode(encoded).token_ids, encode(mask).token_ids)


def test_finer_presets_draw_better():
    fine = small()
    vocabulary = Vocabulary.from_config(fine.paths)
    fine_iou = np.mean([encode(mask, fine, vocabulary).iou for mask in SMOOTH.values()])
    assert fine_iou >= 0.985 and fine_iou > np.mean([encode(mask).iou for mask in SMOOTH.values()]) + 0.01
