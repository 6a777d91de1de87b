"""The scenes of a run's last evaluation, for its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from moonseg_jax.evaluate import Prediction
from moonseg_jax.gallery.scenes import GalleryItem, judged_scenes
from moonseg_jax.gallery.selection import with_largest_changes, worst_typical_best
from moonseg_jax.gallery.store import save_gallery
from moonseg_jax.refine import Refined

GALLERY = "gallery"
"""Name of the folder in a run's."""
PER_SECTION, CHANGES = 8, 4
"""Most scenes of the worst, the typical and the best ones each, and of those that the refiner changed most."""


def keep_judged(
    run: Path,
    predictions: Sequence[Prediction],
    coarse: Sequence[Bool[np.ndarray, "H W"]],
    refined: Sequence[Refined] | None = None,
) -> None:
    """Leaves some scenes of an evaluation in a run's folder, in place of those of the evaluation before.

    Args:
      run: the run's folder.
      predictions: of the policy.
      coarse: their masks, in the same order.
      refined: what the refiner made of them, in the same order; None where there is none.
    """
    keep_scenes(run, judged_scenes(predictions, coarse, refined))


def keep_scenes(run: Path, items: Sequence[GalleryItem]) -> None:
    """The same from scenes that are judged already."""
    ranked = worst_typical_best(items, PER_SECTION)
    save_gallery(with_largest_changes(ranked, items, CHANGES), run / GALLERY)
