import re

import numpy as np

from moonseg_jax.report.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    chart,
    nice_ticks,
    running_mean,
    thinned,
)
from moonseg_jax.report.content import Curve, Series


def curve(values, title="loss"):
    return Curve(title=title, series=(Series(name=title, steps=np.arange(len(values)), values=np.asarray(values)),))


def test_ticks_are_round_and_enclose_the_data():
    assert nice_ticks(0.03, 0.97) == [0.0, 0.5, 1.0]
    assert nice_ticks(-3, 41) == [-20.0, 0.0, 20.0, 40.0, 60.0]
    ticks = nice_ticks(2.0, 2.0)
    assert ticks[0] < 2.0 < ticks[-1]


def test_ticks_of_tiny_values_are_not_rounded_away():
    np.testing.assert_allclose(nice_ticks(0.0, 4e-13), [0.0, 1e-13, 2e-13, 3e-13, 4e-13], rtol=1e-9)
    ticks = nice_ticks(7e-17, 7e-17)
    assert ticks[0] < 7e-17 < ticks[-1]


def test_a_line_runs_from_corner_to_corner_of_its_frame():
    svg = chart(curve([0.0, 0.5, 1.0]))
    assert f'd="M{LEFT:.1f} {HEIGHT - BOTTOM:.1f}L' in svg
    assert f'L{WIDTH - RIGHT:.1f} {TOP:.1f}"' in svg


def test_what_is_not_finite_is_a_gap():
    assert re.search(r'd="M[^ML]*L[^ML]*M[^ML]*L[^ML]*"', chart(curve([0.0, 1.0, np.nan, 2.0, 3.0])))
    assert "no finite values" in chart(curve([np.nan, np.nan]))


def test_long_series_are_thinned_to_means():
    steps, values = thinned(np.arange(1000), np.arange(1000.0), most=10)
    np.testing.assert_allclose(steps, np.arange(10) * 100 + 49.5)
    np.testing.assert_allclose(values, steps)


def test_the_running_mean_is_shorter_at_the_ends_and_skips_gaps():
    values = np.array([1.0, 2.0, 6.0, np.nan, 4.0])
    np.testing.assert_allclose(running_mean(values, 3), [1.5, 3.0, 4.0, np.nan, 4.0])


def test_titles_are_escaped():
    assert "<b>x</b>" not in chart(curve([1.0, 2.0], title="<b>x</b>"))


def test_every_point_is_in_the_table_with_its_place_in_the_drawing():
    html = chart(curve([0.0, np.nan, 1.0]))
    rows = re.findall(r'<tr data-x="([^"]*)"><th scope="row">([^<]*)</th><td>([^<]*)</td></tr>', html)
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    assert rows == [
        (f"{LEFT:.1f}", "0", "0"),
        (f"{middle:.1f}", "1", "–"),
        (f"{WIDTH - RIGHT:.1f}", "2", "1"),
    ]


def test_lines_of_two_runs_differ_by_more_than_their_colour_and_keep_them_where_one_is_empty():
    first = Series(name="a", steps=np.arange(3), values=np.full(3, np.nan))
    second = Series(name="b", steps=np.arange(1, 4), values=np.arange(3.0))
    html = chart(Curve(title="loss", series=(first, second)))
    assert '<path class="s1 d1" d="M46.0' in html and '<path class="s0 d0" d="M46' not in html
    assert re.findall(r"</svg>(a|b)</span>", html) == ["a", "b"]
    both = chart(Curve(title="loss", series=(second, second)))
    assert re.findall(r"<td>([^<]*)</td><td>([^<]*)</td>", both) == [("0", "0"), ("1", "1"), ("2", "2")]
