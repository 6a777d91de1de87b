"""Which scenes the gallery shows."""

from __future__ import annotations

from collections.abc import Sequence

from moonseg_jax.gallery.scenes import GalleryItem, GallerySection


def worst_typical_best(items: Sequence[GalleryItem], per_section: int) -> tuple[GallerySection, ...]:
    """Sorts scenes by the IoU of their final mask and takes both ends and the middle; no scene appears twice.

    Args:
      items: Scenes, in any order; scenes of equal IoU keep it.
      per_section: Most scenes in a section; fewer where there are not three times as many.

    Returns:
      Sections `Worst` (worst first), `Typical` (around the median), `Best` (best first); empty ones left out.
    """
    ranked = sorted(items, key=lambda item: item.iou)
    count = min(per_section, -(-len(ranked) // 3))
    best_from = max(len(ranked) - count, count)
    middle = ranked[count:best_from]
    skipped = max(len(middle) - count, 0) // 2
    total = f"of {len(ranked)}"
    sections = (
        GallerySection(title="Worst", note=f"Lowest final IoU {total} phrases.", items=tuple(ranked[:count])),
        GallerySection(
            title="Typical",
            note=f"Around the median {total} phrases.",
            items=tuple(middle[skipped : skipped + count]),
        ),
        GallerySection(
            title="Best", note=f"Highest final IoU {total} phrases.", items=tuple(reversed(ranked[best_from:]))
        ),
    )
    return tuple(section for section in sections if section.items)


def with_largest_changes(
    sections: Sequence[GallerySection], items: Sequence[GalleryItem], per_section: int
) -> tuple[GallerySection, ...]:
    """Adds the scenes that refinement made worst and best, of those that no section has yet.

    Args:
      sections: chosen already.
      items: Scenes, in any order; those that were not refined, or not changed, are no change.
      per_section: Most scenes in either.

    Returns:
      The sections, then `Lost` (the largest loss first) and `Gained` (the largest gain first); empty ones left out.
    """
    chosen = {id(item) for section in sections for item in section.items}
    changes = [
        (item.iou_refined - item.iou_coarse, item)
        for item in items
        if item.iou_refined is not None and id(item) not in chosen
    ]
    ranked = sorted(changes, key=lambda change: change[0])
    lost = [item for change, item in ranked if change < 0][:per_section]
    gained = [item for change, item in reversed(ranked) if change > 0][:per_section]
    added = (
        GallerySection(title="Lost", note="The refiner took most from these, of all others.", items=tuple(lost)),
        GallerySection(title="Gained", note="The refiner gave these most, of all others.", items=tuple(gained)),
    )
    return (*sections, *(section for section in added if section.items))
