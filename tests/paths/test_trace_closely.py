"""Masks drawn back from their paths: close enough on real and synthetic ones, with few vertices."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mask_samples import blob, corner_cases, ellipse

from moonseg_jax.bench.tracing import annotated_masks, bench_tracing, measure_tracing
from moonseg_jax.config import moondream3, tiny
from moonseg_jax.errors import UserError
from moonseg_jax.paths.close_fit import drawn_iou, least_iou, simplify_closely
from moonseg_jax.paths.fill import fill, winding_numbers
from moonseg_jax.paths.target import encode_target
from moonseg_jax.paths.trace import signed_area, trace
from moonseg_jax.paths.vocabulary import Vocabulary

REAL_DATA = os.environ.get("MOONSEG_REAL_DATA", "")

real_data = pytest.mark.skipif(not REAL_DATA, reason="needs the annotations under MOONSEG_REAL_DATA")


def outlines_of(mask: np.ndarray) -> list[np.ndarray]:
    return [polygon for part in trace(mask) for polygon in part.polygons]


def fractal(rng: np.random.Generator, size: int = 200) -> np.ndarray:
    """A level set of noise with power at every scale: ragged edges, many parts and holes."""
    noise = sum(
        cv2.resize(rng.normal(size=(size // step, size // step)).astype(np.float32), (size, size)) * step
        for step in (5, 10, 20, 50)
    )
    return noise > np.quantile(noise, rng.uniform(0.5, 0.9))


def small(rng: np.random.Generator) -> np.ndarray:
    """An object of 3 to 20 pixels."""
    rx, ry = rng.uniform(1.5, 10, 2)
    return ellipse(40, *rng.uniform(12, 28, 2), rx, ry) & (rng.random((40, 40)) > 0.02)


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.random((40, 50)) < rng.uniform(0.1, 0.9)


@real_data
def test_real_masks_are_drawn_back_closely_with_few_vertices():
    figures = bench_tracing(Path(REAL_DATA) / "coco" / "instances.json", crowds=True)
    assert figures["masks"] == 695
    assert figures["ciou"] >= 0.998 and figures["miou"] >= 0.994 and figures["biou_2pct"] >= 0.990
    assert figures["worst_iou"] >= 0.98
    assert all(figures[f"vertices_p{share}"] <= most for share, most in zip((50, 90, 99), (26, 64, 135)))


@pytest.mark.parametrize(("kind", "count"), [(fractal, 12), (small, 40), (noise, 3), (blob, 12)])
def test_masks_of_every_kind_are_drawn_back_closely(kind, count):
    rng = np.random.default_rng(0)
    figures = measure_tracing([kind(rng) for _ in range(count)])
    assert figures["miou"] >= 0.994 and figures["worst_iou"] >= 0.985


@pytest.mark.parametrize("mask", corner_cases().values(), ids=corner_cases())
def test_corner_cases_are_drawn_back(mask):
    assert measure_tracing([mask])["worst_iou"] >= 0.985


def test_small_objects_are_simplified_less():
    """At 2 pixels a small disc would be a quadrilateral; a large one is drawn well enough."""
    for radius, least, most in ((70.2, 1.7, 2.0), (3.2, 0.0, 1.3)):
        mask = ellipse(160, 80.3, 79.6, radius, radius * 0.8)
        fit = simplify_closely(outlines_of(mask), mask, 2.0)
        assert least <= fit.tolerance <= most and fit.iou >= 0.96


def test_a_larger_tolerance_may_lose_more():
    mask = ellipse(160, 80.3, 79.6, 33, 27)
    counts = [len(simplify_closely(outlines_of(mask), mask, px).polygons[0]) for px in (0.3, 1.0, 3.0, 8.0)]
    assert counts == sorted(counts, reverse=True) and counts[-1] < counts[0] / 3
    assert [least_iou(px) for px in (0, 0.5, 2)] == [1.0, 0.99, 0.96]


def test_no_tolerance_keeps_every_pixel_edge():
    mask = fractal(np.random.default_rng(1))
    fit = simplify_closely(outlines_of(mask), mask, 0.0)
    assert fit.iou == 1.0 and fit.tolerance == 0.0
    for ours, outline in zip(fit.polygons, outlines_of(mask)):
        np.testing.assert_array_equal(ours, outline)


def test_both_rules_give_the_same_mask():
    rng = np.random.default_rng(2)
    for mask in [*(fractal(rng) for _ in range(10)), *(noise(rng) for _ in range(3))]:
        winding = winding_numbers(simplify_closely(outlines_of(mask), mask, 0.5).polygons, *mask.shape)
        assert winding.min() >= 0 and winding.max() <= 1


def test_overlap_and_wrong_directions_have_no_iou():
    square = np.array([(1.0, 1), (9, 1), (9, 9), (1, 9)])
    mask = fill([square], 10, 10)
    assert drawn_iou([square], mask) == 1.0
    assert drawn_iou([square, square / 2], mask) is None
    assert drawn_iou([square[::-1]], mask) is None


def test_winding_counts_turns_with_their_direction():
    square = np.array([(1, 1), (5, 1), (5, 5), (1, 5)])
    winding = winding_numbers([square, square, square[::-1] + 2], 8, 8)
    assert (winding[1, 1], winding[3, 3], winding[5, 5], winding[7, 7]) == (2, 1, -1, 0)


def test_specks_and_directions_survive():
    mask = np.zeros((60, 60), bool)
    mask[5:55, 5:55] = True
    mask[20, 20] = False
    mask[58, 58] = True
    fit = simplify_closely(outlines_of(mask), mask, 0.5)
    assert sorted(signed_area(polygon) for polygon in fit.polygons) == pytest.approx([-1, 1, 2500], abs=2)


def every_integer() -> Vocabulary:
    """The embedded tokenizer as if it wrote every integer of the box."""
    vocabulary = Vocabulary.from_config(dataclasses.replace(tiny().paths, tokenizer="embedded:small"))
    return dataclasses.replace(vocabulary, integers=np.arange(961), integer_ids=np.arange(1000, 1961))


@pytest.mark.parametrize("budget", [768, 40])
def test_targets_with_every_integer_are_close_if_the_budget_allows(budget):
    config, vocabulary = moondream3(), every_integer()
    paths = dataclasses.replace(config.paths, max_new_tokens=budget)
    rng = np.random.default_rng(3)
    for mask in [small(rng) for _ in range(20)]:
        target = encode_target(mask, vocabulary=vocabulary, paths=paths, region=config.region)
        assert len(target.token_ids) <= budget
        if budget == 768:
            assert target.iou >= least_iou(paths.trace_tolerance)


def test_segmentations_that_are_none_are_refused_by_name(tmp_path):
    file = tmp_path / "instances.json"
    file.write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg", "height": 5, "width": 5}], "categories": [{"id": 1, "name": "x"}],'
        ' "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "segmentation": {"size": [5, 5]}}]}'
    )
    with pytest.raises(UserError, match="annotation 7, field segmentation"):
        list(annotated_masks(file))


def test_crowds_are_measured_where_asked_for(tmp_path):
    file = tmp_path / "instances.json"
    file.write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}], "categories": [{"id": 1, "name": "x"}],'
        ' "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 5, 1, 5]]},'
        ' {"id": 8, "image_id": 1, "category_id": 1, "iscrowd": 1,'
        ' "segmentation": {"size": [9, 9], "counts": [10, 3, 68]}}]}'
    )
    figures = bench_tracing(file, crowds=True)
    assert (figures["masks"], figures["miou"], figures["vertices_p99"]) == (2, 1.0, 4.0)
    with pytest.raises(UserError, match="--tolerance nan"):
        bench_tracing(file, tolerance=float("nan"))


def test_nothing_to_measure_is_refused():
    with pytest.raises(UserError, match="at least one pixel"):
        measure_tracing([np.zeros((4, 4), bool)])
