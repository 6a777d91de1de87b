"""Curves as small inline SVG charts that follow the page's colours, each with its figures as a folded table.

The page's script reads the table out at the pointer, and at the arrow keys once a chart has the focus.
"""

from __future__ import annotations

import math
from html import escape

import numpy as np
from jaxtyping import Float, Int

from moonseg_jax.report.content import Curve, Series

WIDTH, HEIGHT = 340, 196
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 36
MOST_POINTS = 300
"""Longer series are drawn as means over equal stretches of points."""
SMOOTHED_FROM = 40
"""From so many points on, a running mean is drawn over the faint raw line."""


def chart(curve: Curve) -> str:
    """Draws one curve as an HTML figure with an inline SVG.

    Returns:
      Escaped HTML; a sentence in place of the chart where there is nothing finite to draw.
    """
    own_name = f" <code>{escape(curve.metric)}</code>" if curve.metric not in ("", curve.title) else ""
    title = f"<figcaption><span>{escape(curve.title)}{own_name}</span>{_latest(curve)}</figcaption>"
    finite = {index: series for index, series in enumerate(curve.series) if np.isfinite(series.values).any()}
    if not finite:
        return f'<figure class="chart">{title}<p class="nothing">no finite values</p></figure>'
    steps = np.concatenate([series.steps for series in finite.values()])
    values = np.concatenate([series.values for series in finite.values()])
    y_ticks = nice_ticks(float(np.nanmin(values)), float(np.nanmax(values)))
    x_range = (float(steps.min()), max(float(steps.max()), float(steps.min()) + 1))
    frame = _Frame(x_range, (y_ticks[0], y_ticks[-1]))
    ends = f"steps {x_range[0]:g} to {x_range[1]:g}, values {np.nanmin(values):.4g} to {np.nanmax(values):.4g}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(curve.title)}: {ends}" tabindex="0">',
        *(_grid_line(frame, tick) for tick in y_ticks),
        *(_step_label(frame, x_range, tick) for tick in nice_ticks(*x_range)),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">step</text>',
        *(_line(frame, series, index) for index, series in finite.items()),
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>',
        '<output class="readout"></output>',
    ]
    below = _legend(curve) + _figures(frame, list(finite.values()))
    return f'<figure class="chart">{title}{"".join(parts)}{below}</figure>'


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers that enclose `low..high`, 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        pad = abs(low) * 0.1 or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / (most - 1)
    exponent = math.floor(math.log10(rough))
    power = 10.0**exponent
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(12, 3 - exponent)
    return [round(index * step, digits) for index in range(first, last + 1)]


def thinned(
    steps: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"], most: int = MOST_POINTS
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Means over at most `most` equal stretches; NaN only where a stretch has nothing finite."""
    if len(steps) <= most:
        return steps.astype(float), values.astype(float)
    stretch = np.arange(len(steps)) * most // len(steps)
    finite = np.isfinite(values)
    counts = np.bincount(stretch[finite], minlength=most)
    sums = np.bincount(stretch[finite], weights=values[finite], minlength=most)
    means = np.divide(sums, counts, out=np.full(most, np.nan), where=counts > 0)
    return np.bincount(stretch, weights=steps) / np.bincount(stretch), means


def running_mean(values: Float[np.ndarray, " n"], width: int) -> Float[np.ndarray, " n"]:
    """Mean over a centred window of `width` points (odd), shorter at the ends, over what is finite in it."""
    window = np.ones(width)
    finite = np.isfinite(values)
    sums = np.convolve(np.where(finite, values, 0.0), window, mode="same")
    counts = np.convolve(finite.astype(float), window, mode="same")
    return np.where(finite, sums / np.maximum(counts, 1), np.nan)


class _Frame:
    """From data to SVG coordinates."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self._x0, self._x1 = x_range
        self._y0, self._y1 = y_range

    def x(self, value: float) -> float:
        return LEFT + (value - self._x0) / (self._x1 - self._x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (self._y1 - value) / (self._y1 - self._y0) * (HEIGHT - TOP - BOTTOM)

    def path(self, xs: Float[np.ndarray, " n"], ys: Float[np.ndarray, " n"]) -> str:
        """SVG path data; a gap at every NaN."""
        words, pen_down = [], False
        for x, y in zip(xs, ys):
            if math.isfinite(y):
                words.append(f"{'L' if pen_down else 'M'}{self.x(x):.1f} {self.y(y):.1f}")
            pen_down = math.isfinite(y)
        return "".join(words)


def _line(frame: _Frame, series: Series, index: int) -> str:
    xs, ys = thinned(series.steps, series.values)
    colour = f"s{index % 4} d{index % 4}"
    if len(xs) == 1:
        return f'<circle class="{colour} dot" cx="{frame.x(xs[0]):.1f}" cy="{frame.y(ys[0]):.1f}" r="3"/>'
    if len(xs) < SMOOTHED_FROM:
        return f'<path class="{colour}" d="{frame.path(xs, ys)}"/>'
    smooth = running_mean(ys, len(ys) // 20 * 2 + 1)
    raw = f'<path class="{colour} raw" d="{frame.path(xs, ys)}"/>'
    return f'{raw}<path class="{colour}" d="{frame.path(xs, smooth)}"/>'


def _grid_line(frame: _Frame, tick: float) -> str:
    y = frame.y(tick)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{tick:.6g}</text>'
    )


def _step_label(frame: _Frame, x_range: tuple[float, float], tick: float) -> str:
    if not x_range[0] <= tick <= x_range[1]:
        return ""
    x = frame.x(tick)
    anchor = "end" if x > WIDTH - RIGHT - 12 else "middle"
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="{anchor}">{tick:.6g}</text>'


def _figures(frame: _Frame, series: list[Series]) -> str:
    """What is drawn, as a table: a row for every step, with its place in the drawing for the script."""
    columns = [thinned(one.steps, one.values) for one in series]
    at = sorted({float(step) for steps, _ in columns for step in steps})
    by_step = [dict(zip(map(float, steps), values)) for steps, values in columns]
    rows = "".join(
        f'<tr data-x="{frame.x(step):.1f}"><th scope="row">{step:.6g}</th>'
        + "".join(f"<td>{_value(one.get(step, math.nan))}</td>" for one in by_step) + "</tr>"
        for step in at
    )  # fmt: skip
    names = "".join(f'<th scope="col">{escape(one.name)}</th>' for one in series)
    head = f'<thead><tr><th scope="col">step</th>{names}</tr></thead>'
    table = f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>'
    return f"<details><summary>figures</summary>{table}</details>"


def _value(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _latest(curve: Curve) -> str:
    """The last finite value of every series, in the order of the legend."""
    last = [one.values[np.isfinite(one.values)] for one in curve.series]
    shown = [f"<b>{values[-1]:.4g}</b>" for values in last if len(values)]
    return f'<span class="latest">{" · ".join(shown)}</span>' if shown else ""


def _legend(curve: Curve) -> str:
    if len(curve.series) < 2:
        return ""
    entries = "".join(
        f'<span class="line"><svg viewBox="0 0 26 8" aria-hidden="true"><path class="s{index % 4} d{index % 4}" '
        f'd="M1 4h24"/></svg>{escape(one.name)}</span>'
        for index, one in enumerate(curve.series)
    )
    return f'<div class="legend">{entries}</div>'
