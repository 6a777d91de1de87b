"""Groups of samples as HTML: one card a prompt, its samples by advantage, whose sign is a mark and a side of a line."""

from __future__ import annotations

from html import escape

import numpy as np

from moonseg_jax.report.content import Groups, GroupSample, SampleGroup
from moonseg_jax.report.scene import card, overlay, panel, path_drawing, truth_panel

NO_ADVANTAGE = 0.0005
"""Advantages below this are shown as 0."""


def groups_html(groups: Groups) -> str:
    """All groups of a step."""
    largest = max((abs(one.advantage) for group in groups.groups for one in group.samples), default=0.0)
    cards = "".join(_card(group, largest) for group in groups.groups)
    return f'<h3>{escape(groups.title)}</h3><p class="note">{escape(groups.note)}</p><div class="groups">{cards}</div>'


def _card(group: SampleGroup, largest: float) -> str:
    panels = [truth_panel(group.truth), *(_sample(one, group, largest) for one in group.samples)]
    return card(group.phrase, _figures(group), panels, group.photo, group.truth, css="scene group")


def _figures(group: SampleGroup) -> str:
    iou = np.array([one.iou for one in group.samples])
    flat = ' <span class="status">filtered out: all samples have the same IoU</span>' if group.flat else ""
    spread = f"IoU {iou.min():.2f} to {iou.max():.2f}, mean <b>{iou.mean():.2f}</b>"
    return f"{spread}, standard deviation {iou.std():.3f}{flat}"


def _sample(sample: GroupSample, group: SampleGroup, largest: float) -> str:
    paid = "" if abs(sample.reward - sample.iou) < 5e-4 else f"<br>reward {sample.reward:.3f}"
    caption = (
        f"{advantage_bar(sample.advantage, largest)}<span>IoU {sample.iou:.3f}{paid}<br>{sample.tokens} tokens</span>"
    )
    drawn = overlay(sample.mask, group.truth, "sampled mask") + path_drawing(sample.polygons)
    return panel(caption, drawn, escape(sample.remark) or ("" if sample.polygons else "empty path"))


def advantage_bar(advantage: float, largest: float) -> str:
    """An advantage in words, and as a bar from the middle: right of it where the sample is encouraged.

    Args:
      advantage: of the sample.
      largest: absolute advantage of the page, which fills its half.
    """
    if abs(advantage) < NO_ADVANTAGE:
        return '<span class="advantage">advantage 0</span>'
    side, mark = ("plus", "▲") if advantage > 0 else ("minus", "▼")
    width = 50 * min(abs(advantage) / largest, 1.0) if largest else 0.0
    return (
        f'<span class="advantage {side}">{mark} {advantage:+.3f}</span>'
        f'<span class="bar" aria-hidden="true"><i class="{side}" style="width:{width:.1f}%"></i></span>'
    )
