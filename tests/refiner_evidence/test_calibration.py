"""Predicted against true IoU, with numbers worked by hand."""

import numpy as np
import pytest

from moonseg_jax.refiner_evidence.calibration import calibration


def test_error_is_the_bins_gaps_weighted_by_their_masks():
    predicted = np.array([0.15, 0.25, 0.85, 0.9])
    true = np.array([0.3, 0.1, 0.65, 0.7])
    found = calibration(predicted, true, bins=5)
    # Bin 0–.2: .15 against .3. Bin .2–.4: .25 against .1. Bin .8–1: .875 against .675, twice.
    assert [(one.low, one.high, one.n) for one in found.bins] == [(0, 0.2, 1), (0.2, 0.4, 1), (0.8, 1, 2)]
    assert [one.predicted for one in found.bins] == pytest.approx([0.15, 0.25, 0.875])
    assert [one.true for one in found.bins] == pytest.approx([0.3, 0.1, 0.675])
    assert found.expected_error == pytest.approx((0.15 + 0.15 + 2 * 0.2) / 4)
    assert found.mean_error == pytest.approx((-0.15 + 0.15 + 0.2 + 0.2) / 4)
    # Less their means .5375 and .4375: predicted -.3875 -.2875 .3125 .3625, true -.1375 -.3375 .2125 .2625.
    assert found.correlation == pytest.approx(0.311875 / np.sqrt(0.461875 * 0.246875))


def test_predictions_on_and_beyond_the_edges_fall_into_bins():
    found = calibration(np.array([0.3, 1.0, 1.2, -0.1]), np.array([0.3, 1.0, 1.0, 0.0]))
    assert [(one.low, one.n) for one in found.bins] == [(0.0, 1), (0.3, 1), (0.9, 2)]
    assert found.bins[-1].predicted == pytest.approx(1.1), "raw predictions are averaged, as they came"
    assert found.expected_error == pytest.approx((0.1 + 0.0 + 2 * 0.1) / 4)


def test_what_cannot_be_said_is_left_open():
    none = calibration(np.zeros(0), np.zeros(0))
    assert (none.n, none.bins, none.expected_error, none.mean_error, none.correlation) == (0, (), None, None, None)
    assert calibration(np.array([0.5, 0.5]), np.array([0.1, 0.9])).correlation is None
    with pytest.raises(ValueError, match="predicted is"):
        calibration(np.zeros(2), np.zeros(3))
