"""The gallery as HTML: every stored scene as a card, the worst first, with controls that the page's script reveals."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from moonseg_jax.gallery.scenes import GallerySection
from moonseg_jax.report.content import PairedGallery, ScenePair
from moonseg_jax.report.scene import card, change, overlay, panel, path_drawing, refined_panel, scene_card, truth_panel

Orders = Sequence[tuple[str, str]]
"""What a control offers: a rank of the cards and a direction, and its name."""

ORDERS: Orders = (
    ("iou up", "IoU, worst first"),
    ("iou down", "IoU, best first"),
    ("gain up", "Gain of the refiner, largest loss first"),
    ("gain down", "Gain of the refiner, largest gain first"),
    ("place up", "As stored"),
)
SIZES = ("small", "medium", "large", "none")


def gallery(sections: Sequence[GallerySection]) -> str:
    """All scenes of all sections, by the IoU of their final masks."""
    items = [(section.title, item) for section in sections for item in section.items]
    if not items:
        return ""
    cards = [(item.iou, scene_card(item, place, title.lower())) for place, (title, item) in enumerate(items)]
    notes = " ".join(f"{section.title}: {section.note}" for section in sections if section.note)
    return sortable([html for _, html in sorted(cards, key=lambda one: one[0])], ORDERS, notes)


def paired_gallery(paired: PairedGallery) -> str:
    """The scenes of two runs, those first that the second one draws worst beside the first."""
    if not paired.pairs:
        return f'<p class="note">{escape(paired.note)}</p>'
    first, second = paired.names
    orders = (
        ("difference up", f"Difference, {second} worst beside {first}"),
        ("difference down", f"Difference, {second} best beside {first}"),
        ("first up", f"IoU of {first}, worst first"),
        ("second up", f"IoU of {second}, worst first"),
    )
    ranked = sorted(paired.pairs, key=lambda pair: pair.difference)
    return sortable([_pair_card(pair, paired.names) for pair in ranked], orders, paired.note)


def sortable(cards: Sequence[str], orders: Orders, note: str) -> str:
    """Cards in the order of the first of `orders`, and controls that are hidden until the script works them."""
    ways = "".join(f'<option value="{value}">{escape(name)}</option>' for value, name in orders)
    sizes = "".join(f'<option value="{size}">{"no target" if size == "none" else size}</option>' for size in SIZES)
    controls = (
        f'<div class="controls" hidden><label>Order <select name="sort">{ways}</select></label>'
        '<label>Words <input type="search" name="words" placeholder="part of a phrase" autocomplete="off"></label>'
        f'<label>Object <select name="size"><option value="">any size</option>{sizes}</select></label>'
        '<output aria-live="polite"></output></div>'
    )
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'{said}<div data-gallery>{controls}<div class="scenes">{"".join(cards)}</div></div>'


def _pair_card(pair: ScenePair, names: tuple[str, str]) -> str:
    panels = [panel("photo", "")]
    for name, item in zip(names, (pair.first, pair.second)):
        panels.append(
            panel(f"{escape(name)}: path", path_drawing(item.polygons), "" if item.polygons else "empty path")
        )
        if item.refined is None:
            empty = "" if item.coarse.any() else "empty mask"
            panels.append(panel(f"{escape(name)}: coarse", overlay(item.coarse, item.truth, "coarse mask"), empty))
        else:
            panels.append(refined_panel(item, f"{escape(name)}: refined"))
    panels.append(truth_panel(pair.first.truth))
    figures = (
        f"IoU {escape(names[0])} <b>{pair.first.iou:.2f}</b> · {escape(names[1])} <b>{pair.second.iou:.2f}</b> "
        f"{change(pair.difference)}"
    )
    ranks = {"difference": pair.difference, "first": pair.first.iou, "second": pair.second.iou}
    return card(pair.first.phrase, figures, panels, pair.first.image, pair.first.truth, ranks, "scene pair")
