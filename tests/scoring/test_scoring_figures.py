"""Figures against numbers worked by hand and against plain implementations of the definitions."""

import random

import numpy as np
import pytest

from moonseg_jax.metrics import MaskMetrics
from moonseg_jax.scoring.boundary_f import boundary_f, boundary_matches, thin_boundary, tolerance_px
from moonseg_jax.scoring.figures import bootstrap, by_size, figures, mean_over_classes, merge, status_counts
from moonseg_jax.scoring.sample_score import score_sample


def box(top, left, bottom, right, size=20):
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def random_pairs(count=12):
    rng = np.random.default_rng(3)
    for _ in range(count):
        corners = np.sort(rng.integers(0, 41, (2, 2, 2)), axis=1)
        yield tuple(box(*c[0], *c[1], size=40) for c in corners)


def scored(count=12):
    return [score_sample(p, t, id=f"{i:02}") for i, (p, t) in enumerate(random_pairs(count))]


def plain_f(prediction, truth):
    """F by the distance between every two boundary pixels."""
    h, w = truth.shape

    def points(m):
        def at(y, x):
            return bool(m[min(y, h - 1), min(x, w - 1)])

        return [
            (y, x) for y in range(h) for x in range(w)
            if len({at(y, x), at(y, x + 1), at(y + 1, x), at(y + 1, x + 1)}) == 2
        ]  # fmt: skip

    a, b = points(prediction), points(truth)
    if not a or not b:
        return float(len(a) == len(b))
    limit = int(np.ceil(0.008 * np.sqrt(h * h + w * w)))

    def near(p, others):
        return any((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 <= limit**2 for q in others)

    precision, recall = sum(near(p, b) for p in a) / len(a), sum(near(q, a) for q in b) / len(b)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_tolerance_is_seven_pixels_at_640_by_480():
    assert tolerance_px(480, 640) == 7


def test_boundary_of_one_pixel_is_that_pixel_and_its_upper_left_neighbours():
    assert np.argwhere(thin_boundary(box(2, 3, 3, 4))).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_boundary_f_equals_the_distance_definition():
    for prediction, truth in random_pairs():
        assert boundary_f(*boundary_matches(prediction, truth)) == pytest.approx(plain_f(prediction, truth), abs=1e-12)


def test_shared_figures_equal_mask_metrics():
    metrics = MaskMetrics()
    for prediction, truth in random_pairs():
        metrics.add(prediction, truth)
    ours = figures(scored())
    assert {name: ours[name] for name in metrics.summary()} == pytest.approx(metrics.summary(), abs=1e-12)


def test_hand_worked_iou_and_gres_accuracies():
    empty = box(0, 0, 0, 0)
    samples = [
        score_sample(box(0, 0, 10, 10), box(0, 0, 10, 20), id="half"),
        score_sample(empty, empty, id="rightly empty"),
        score_sample(box(0, 0, 1, 1), empty, id="wrongly drawn"),
        score_sample(empty, box(0, 0, 10, 10), id="missed", status="missing"),
    ]
    ours = figures(samples)
    assert (ours["miou"], ours["ciou"], ours["p50"]) == (0.375, 100 / 301, 0.5)
    assert (ours["n_acc"], ours["t_acc"]) == (0.5, 0.5)
    assert status_counts(samples) == {"missing": 1, "ok": 3, "empty": 2}
    assert by_size(samples)["large"]["n"] == 2


def test_classes_weigh_the_same():
    whole, nothing = box(0, 0, 9, 9), box(0, 0, 0, 0)
    samples = [score_sample(p, whole, id=str(i)) for i, p in enumerate((whole, whole, whole, nothing))]
    assert figures(samples)["miou"] == 0.75
    assert mean_over_classes(samples, [1, 1, 1, 2]) == 0.5


def test_any_order_of_merging_gives_the_same_figures_and_intervals():
    samples = scored()
    mixed = random.Random(1).sample(samples, len(samples))
    assert merge(mixed[:5], mixed[5:]) == merge(samples)
    assert figures(mixed) == figures(samples)
    assert bootstrap(mixed) == bootstrap(samples)
    low, high = bootstrap(samples)["miou"]
    assert low < figures(samples)["miou"] < high
    with pytest.raises(ValueError, match="00"):
        merge(samples, samples)
