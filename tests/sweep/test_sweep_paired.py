"""Means over seeds and paired tests: numbers worked by hand, and SciPy's."""

import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from moonseg_jax.sweep.paired import holm, mean_over_seeds, paired_test, sign_flip_p, student_p, with_holm

ONE_TO_FIVE = [1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_mean_has_the_standard_error_of_its_spread():
    found = mean_over_seeds([1.0, 2.0, 6.0])
    # Squares of -2, -1, 3 sum to 14; 14 / 2 = 7; √7 / √3.
    assert (found.n, found.mean) == (3, 3.0) and found.standard_error == pytest.approx(math.sqrt(7 / 3))
    assert mean_over_seeds([4.0]).standard_error is None


def test_students_p_is_what_closed_forms_say():
    assert student_p(1.0, 1) == pytest.approx(0.5)
    assert student_p(-1.0, 1) == pytest.approx(0.5)
    assert student_p(2.0, 2) == pytest.approx(1 - 2 / math.sqrt(6))
    assert student_p(0.0, 7) == pytest.approx(1.0)


@given(t=st.floats(-40, 40), freedom=st.integers(1, 60))
def test_students_p_is_scipys(t, freedom):
    assert student_p(t, freedom) == pytest.approx(2 * scipy.stats.t.sf(abs(t), freedom), rel=1e-7, abs=1e-12)


def test_a_paired_test_worked_by_hand():
    found = paired_test(ONE_TO_FIVE)
    # Mean 3, standard deviation √2.5, error √.5, t = 3 √2 with 4 degrees of freedom; A = s (1 + c²/2), s² = 18 / 22.
    sine = math.sqrt(18 / 22)
    assert found.standard_error == pytest.approx(math.sqrt(0.5))
    assert found.t_p == pytest.approx(1 - sine * (1 + (4 / 22) / 2))
    assert found.t_p == pytest.approx(scipy.stats.ttest_1samp(ONE_TO_FIVE, 0).pvalue)
    # Only all signs up and all signs down reach 15: 2 of 32.
    assert found.sign_flip_p == pytest.approx(2 / 32)


def test_sign_flips_are_counted_with_ties():
    # |±1 ±1 ±1 ±1 ±1| is 5 twice and 3 ten times.
    assert sign_flip_p([1.0, 1.0, 1.0, 1.0, -1.0]) == pytest.approx(12 / 32)
    assert sign_flip_p([0.1, 0.2, 0.3, 0.4]) is None
    assert sign_flip_p([0.0] * 6) == 1.0
    assert sign_flip_p([0.01] * 20) == pytest.approx(2 / 2**20)
    assert sign_flip_p([0.01] * 21) is None


def test_differences_without_spread_have_no_t_test():
    assert paired_test([0.3, 0.3, 0.3]).t_p is None
    assert paired_test([0.0, 0.0]).t_p == 1.0
    assert paired_test([0.3]).t_p is None and paired_test([0.3]).standard_error is None


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "none": None}) == {
        "a": pytest.approx(0.03), "b": pytest.approx(0.06), "c": pytest.approx(0.06), "none": None,
    }  # fmt: skip
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_both_p_values_are_corrected_over_the_arms():
    tests = with_holm({"up": paired_test(ONE_TO_FIVE), "down": paired_test([-one for one in ONE_TO_FIVE])})
    single = paired_test(ONE_TO_FIVE)
    assert tests["up"].t_p_holm == pytest.approx(2 * single.t_p)
    assert tests["down"].sign_flip_p_holm == pytest.approx(4 / 32)
