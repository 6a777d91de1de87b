"""Differences of all arms in one figure, as a small inline SVG: a dot at the mean, a line as long as its error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from moonseg_jax.report.chart import nice_ticks
from moonseg_jax.sweep.paired import PairedTest

WIDTH, LEFT, RIGHT, TOP, ROW, BOTTOM = 340, 118, 14, 8, 18, 24
LONGEST_LABEL = 18
"""Letters of an arm's name that fit beside its row; longer ones end in dots."""


def difference_plot(title: str, tests: Mapping[str, PairedTest]) -> str:
    """Differences of arms, each with its standard error, around a line at 0.

    Args:
      title: for people.
      tests: by arm, from the top down; at least one.

    Returns:
      An escaped HTML figure.
    """
    ends = [end for test in tests.values() for end in _ends(test)]
    ticks = nice_ticks(min(*ends, 0.0), max(*ends, 0.0), 4)
    height = TOP + ROW * len(tests) + BOTTOM

    def x(value: float) -> float:
        return LEFT + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (WIDTH - LEFT - RIGHT)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        *(_tick(x(tick), height, tick) for tick in ticks),
        f'<line class="s1" x1="{x(0.0):.1f}" x2="{x(0.0):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>',
    ]
    for row, (arm, test) in enumerate(tests.items()):
        parts.append(_row(arm, TOP + ROW * (row + 0.5), x(test.mean), [x(end) for end in _ends(test)]))
    caption = f"<figcaption>{escape(title)}, ± standard error</figcaption>"
    return f'<figure class="chart">{caption}{"".join(parts)}</svg></figure>'


def _ends(test: PairedTest) -> tuple[float, float]:
    error = test.standard_error or 0.0
    return test.mean - error, test.mean + error


def _row(arm: str, y: float, mean: float, ends: Sequence[float]) -> str:
    label = arm if len(arm) <= LONGEST_LABEL else arm[: LONGEST_LABEL - 1] + "…"
    return (
        f'<text x="{LEFT - 8}" y="{y + 3.5:.1f}" text-anchor="end">{escape(label)}</text>'
        f'<line class="s0" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<circle class="s0 dot" cx="{mean:.1f}" cy="{y:.1f}" r="3"/>'
    )


def _tick(x: float, height: int, tick: float) -> str:
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:.4g}</text>'
    )
