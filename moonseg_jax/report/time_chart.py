"""Where the seconds of a stage went, as stacked bars: one of the whole stage, one for every log."""

from __future__ import annotations

from html import escape

import numpy as np
from jaxtyping import Float

from moonseg_jax.progress import duration
from moonseg_jax.report.content import TimeSplit
from moonseg_jax.report.time_spent import REST
from moonseg_jax.time_split import SHOWN

MOST_BARS = 60
"""Logs are put together until there are no more bars."""
MOST_LABELS = 6
"""Beneath them; each names the steps of the bars above it."""
LABELLED_FROM = 0.16
"""Smaller shares have no words in the bar; all are in the table."""


def time_html(split: TimeSplit) -> str:
    """Bars and table of one stage as escaped HTML."""
    total = split.seconds.sum(axis=0)
    steps = int(split.steps[-1]) if len(split.steps) else 0
    head = f"<h3>{escape(split.title)}</h3>"
    note = f'<p class="note">{escape(split.note)}</p>' if split.note else ""
    return (
        f'{head}{note}<div class="spent">{_whole(split, total)}<figure class="chart">'
        "<figcaption><span>share of the seconds of a step, log by log</span></figcaption>"
        f"{_over_the_run(split)}</figure>{_table(split, total, steps)}</div>"
    )


def _whole(split: TimeSplit, total: Float[np.ndarray, " parts"]) -> str:
    shares = total / max(total.sum(), 1e-9)
    said = ", ".join(f"{part} {share:.0%}" for part, share in zip(split.parts, shares))
    segments = "".join(
        f'<span class="p{colour(part)}" style="flex-grow:{share:.4f}">{_label(part, share)}</span>'
        for part, share in zip(split.parts, shares)
        if share > 0
    )
    return f'<div class="whole" role="img" aria-label="{escape(said)}">{segments}</div>'


def _label(part: str, share: float) -> str:
    return f"{escape(part)} {share:.0%}".replace("%", " %") if share >= LABELLED_FROM else ""


def _over_the_run(split: TimeSplit) -> str:
    """Bars of equal width and height, stretched to the page; the words beneath would be warped inside the drawing."""
    count = len(split.steps)
    bin_of = np.arange(count) * min(count, MOST_BARS) // count
    bars = np.zeros((bin_of[-1] + 1, len(split.parts)))
    np.add.at(bars, bin_of, split.seconds)
    last = [int(split.steps[bin_of == index][-1]) for index in range(len(bars))]
    shares = bars / np.maximum(bars.sum(axis=1, keepdims=True), 1e-9)
    wide = 100 / len(bars)
    drawn = []
    for index, share in enumerate(shares):
        top = 0.0
        for part, height in zip(split.parts, 100 * share):
            if height > 0:
                drawn.append(
                    f'<rect class="p{colour(part)}" x="{index * wide:.2f}" y="{top:.2f}" width="{0.97 * wide:.2f}" '
                    f'height="{height:.2f}"/>'
                )
            top += height
    return (
        '<svg class="bars" viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="shares of time over {last[-1]} steps">{"".join(drawn)}</svg>{_axis(last)}'
    )


def _axis(last: list[int]) -> str:
    """The steps of equal stretches of bars."""
    per_label = -(-len(last) // MOST_LABELS)
    labels, before = [], 0
    for first in range(0, len(last), per_label):
        stretch = last[first : first + per_label]
        steps = f"{before + 1}–{stretch[-1]}" if stretch[-1] > before + 1 else str(stretch[-1])
        labels.append(f'<span style="flex-grow:{len(stretch)}">{steps}</span>')
        before = stretch[-1]
    return f'<div class="axis">{"".join(labels)}</div><div class="axis"><span>steps</span></div>'


def _table(split: TimeSplit, total: Float[np.ndarray, " parts"], steps: int) -> str:
    timed = max(total[:-1].sum(), 1e-9)
    rows = "".join(
        f'<tr><th scope="row"><span class="key p{colour(part)}">{escape(part)}</span></th>'
        f"<td>{duration(float(total[index]))}</td><td>{total[index] / max(total.sum(), 1e-9):.1%}</td>"
        f"<td>{'–' if part == REST else format(total[index] / timed, '.1%')}</td>"
        f"<td>{total[index] / max(steps, 1):.3f}</td></tr>"
        for index, part in enumerate(split.parts)
    )
    head = '<thead><tr><th scope="col">part</th><th scope="col">in all</th><th scope="col">share</th>'
    head += '<th scope="col">without rest</th><th scope="col">s per step</th></tr></thead>'
    return f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>'


def colour(part: str) -> int:
    """Which of the page's eight hues a part has, on all charts the same; what is left has the quiet one."""
    return 7 if part == REST else SHOWN.index(part) if part in SHOWN else 6
