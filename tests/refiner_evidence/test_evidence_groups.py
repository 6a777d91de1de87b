"""Groups of masks by object size and coarse IoU, and the figures of each."""

import numpy as np
import pytest

from moonseg_jax.metrics import by_object_size
from moonseg_jax.refiner_evidence.groups import BAND_NAMES, band_of, grouped, measured, size_of

SIDE = 40


def rows(count):
    """A mask of so many full rows."""
    return np.arange(SIDE)[:, None] * np.ones(SIDE, int) < count


def test_sizes_are_those_of_training():
    # Medium from 5.33 of 1600 pixels, large from 48: one pixel more or less decides.
    masks = np.zeros((5, SIDE, SIDE), bool)
    for mask, pixels in zip(masks, (0, 5, 6, 47, 48)):
        mask.reshape(-1)[:pixels] = True
    assert [size_of(mask) for mask in masks] == [None, "small", "medium", "medium", "large"]
    for name, chosen in by_object_size(masks).items():
        assert [size_of(mask) == name for mask in masks] == list(np.asarray(chosen))


def test_bands_are_fifths():
    values = {0.0: 0, 0.19: 0, 0.2: 1, 0.6: 3, 0.79: 3, 0.8: 4, 1.0: 4}
    assert {value: BAND_NAMES.index(band_of(value)) for value in values} == values
    assert BAND_NAMES[1] == "coarse IoU 0.2–0.4"


def test_each_group_has_the_figures_of_its_own_masks():
    truths = [rows(20), rows(10), np.zeros((SIDE, SIDE), bool)]
    coarse = [rows(10), rows(1), rows(5)]  # IoU 1/2, 1/10 and 0: bands 2, 0 and 0.
    refined = [rows(16), rows(8), rows(0)]  # 4/5, 4/5 and 1.
    flooded = [rows(20), rows(20), rows(5)]  # 1, 1/2 and 0.
    parts = [[measured(mask, truth) for mask, truth in zip(masks, truths)] for masks in (coarse, refined, flooded)]
    groups = {group.name: group for group in grouped(parts[:2], parts[2], truths)}
    assert {name: group.n for name, group in groups.items()} == {
        "all": 3, "large": 2, BAND_NAMES[0]: 2, BAND_NAMES[2]: 1,
    }  # fmt: skip
    before, after = groups["all"].iterations
    assert before.miou == pytest.approx((0.5 + 0.1 + 0) / 3) and after.miou == pytest.approx((0.8 + 0.8 + 1) / 3)
    assert before.ciou == pytest.approx((10 + 1) / (20 + 10 + 5)) and after.ciou == pytest.approx(24 / 30)
    assert groups["all"].flood_fill.miou == pytest.approx(0.5)
    low = groups[BAND_NAMES[0]]
    assert [one.miou for one in low.iterations] == pytest.approx([0.05, 0.9])
    assert low.flood_fill.ciou == pytest.approx(10 / 25)
    assert [one.miou for one in groups["large"].iterations] == pytest.approx([0.3, 0.8])
    # Boundaries of 2 px: whatever is not in the inner rectangle, the image's border counting as background.
    ours, theirs = ring(16), ring(20)
    assert groups[BAND_NAMES[2]].iterations[1].biou_2px == pytest.approx(
        np.count_nonzero(ours & theirs) / np.count_nonzero(ours | theirs)
    )


def ring(count):
    """The boundary of `rows(count)`, two pixels wide: all but the inner rectangle."""
    inner = np.zeros((SIDE, SIDE), bool)
    inner[2 : count - 2, 2 : SIDE - 2] = True
    return rows(count) & ~inner
