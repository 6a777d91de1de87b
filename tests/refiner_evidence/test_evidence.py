"""Evidence of a refiner that is replaced by a rule, so that every number is known."""

import json

import numpy as np
import pytest
from tiny_models import micro_policy

from moonseg_jax import baselines
from moonseg_jax.refine import Refiner
from moonseg_jax.refiner_evidence.coarse_masks import CoarseMask
from moonseg_jax.refiner_evidence.evidence import Evidence, measure
from moonseg_jax.refiner_evidence.tables import evidence_tables, markdown
from moonseg_jax.status import EMPTY_COARSE, EMPTY_RESULT, REFINED

SIDE = 48
WHOLE = np.array([0.5, 0.5, 1.0, 1.0])


def rows(count, start=0):
    return (np.arange(SIDE)[:, None] * np.ones(SIDE, int) < start + count) & (np.arange(SIDE)[:, None] >= start)


def coarse_mask(coarse, truth):
    image = np.where(truth[..., None], 200, 50).astype(np.uint8).repeat(3, axis=-1)
    return CoarseMask(image=image, box=WHOLE, coarse=coarse, truth=truth)


@pytest.fixture
def refiner():
    """Takes four rows off the end, then another four; predicts .9, then .7. The crop is the whole image."""
    refiner = Refiner(micro_policy(), None, None, batch=2, iterations=2)

    def run(policy, head, crops, masks):
        last = masks.shape[1] - 1 - masks[:, ::-1].any(axis=2).argmax(axis=1)
        steps = [masks * (np.arange(SIDE) <= last[:, None] - 4 * step)[..., None] for step in (1, 2)]
        return [(step, np.full(len(masks), score)) for step, score in zip(steps, (0.9, 0.7))]

    refiner._run_each = run
    return refiner


@pytest.fixture
def masks():
    return [
        coarse_mask(rows(24), rows(16)),  # IoU 2/3 → 4/5 → 1
        coarse_mask(rows(16), rows(16)),  # 1 → 3/4 → 1/2
        coarse_mask(rows(0), rows(10)),  # 0, and nothing to refine
        coarse_mask(rows(6), rows(8)),  # 3/4 → 1/4 → 3/4: nothing is left of it, the coarse one stands
    ]


def test_every_iteration_is_measured(refiner, masks):
    found = measure(refiner, masks)
    assert [one.miou for one in found.whole.iterations] == pytest.approx(
        [(2 / 3 + 1 + 0 + 3 / 4) / 4, (4 / 5 + 3 / 4 + 0 + 1 / 4) / 4, (1 + 1 / 2 + 0 + 3 / 4) / 4]
    )
    assert [one.ciou for one in found.whole.iterations] == pytest.approx([38 / 58, 30 / 54, 30 / 50])
    assert found.worse == (0.5, 0.25)
    assert found.statuses == {REFINED: 2, EMPTY_COARSE: 1, EMPTY_RESULT: 1}


def test_the_ground_truth_is_refined_too_where_there_is_one(refiner):
    # 40 of 48 rows grown by a quarter are all of the image: 36 rows are left, then 32; of 44 rows 40, then 36.
    found = measure(refiner, [coarse_mask(rows(20), rows(count)) for count in (40, 44, 0)])
    assert found.identity_iou == pytest.approx([(36 / 40 + 40 / 44) / 2, (32 / 40 + 36 / 44) / 2])
    assert measure(refiner, [coarse_mask(rows(20), rows(0))]).identity_iou == ()


def test_predictions_of_the_last_iteration_are_held_against_the_final_masks(refiner, masks):
    found = measure(refiner, masks).calibration
    assert found.n == 2 and [(one.low, one.n) for one in found.bins] == [(0.7, 2)]
    assert found.bins[0].true == pytest.approx(0.75) and found.expected_error == pytest.approx(0.05)
    assert found.correlation is None


def test_the_flood_fill_gets_the_same_masks_and_its_best_tolerance(refiner, masks):
    found = measure(refiner, masks)
    # The median colour is the object's in the first (16 of 24 rows) too: all are filled exactly, but for the empty one.
    assert found.whole.flood_fill.miou == pytest.approx(3 / 4)
    assert found.flood_tolerance == 10.0 and baselines.mask_iou(masks[2].coarse, masks[2].truth) == 0


def test_bands_follow_the_coarse_mask(refiner, masks):
    found = {group.name: group for group in measure(refiner, masks).groups}
    assert found["coarse IoU 0.6–0.8"].n == 2
    assert [one.miou for one in found["coarse IoU 0.8–1.0"].iterations] == pytest.approx([1, 3 / 4, 1 / 2])


def test_json_and_tables_say_the_same(refiner, masks):
    found = measure(refiner, masks)
    assert Evidence.from_data(json.loads(json.dumps(found.as_data()))) == found
    iterations, groups, calibrated = (markdown(table) for table in evidence_tables(found, "policy"))
    assert "| iteration 2 | 0.562 | 0.600 |" in iterations and "| 25.0% |" in iterations
    assert "| coarse | 0.604 | 0.655 |" in iterations and "| flood fill | 0.750 |" in iterations
    assert "| coarse IoU 0.8–1.0 | 1 | 1.000 → 0.500 |" in groups
    assert "| 0.7–0.8 | 2 | 0.700 | 0.750 |" in calibrated and "correlation –" in calibrated


def test_no_masks_are_no_evidence(refiner):
    with pytest.raises(ValueError, match="at least one coarse mask"):
        measure(refiner, [])
