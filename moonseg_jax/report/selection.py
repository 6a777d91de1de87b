"""Which scenes the gallery shows."""

from __future__ import annotations

from collections.abc import Sequence

from moonseg_jax.report.content import GalleryItem, GallerySection


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
