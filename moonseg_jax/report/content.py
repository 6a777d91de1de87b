"""What a report shows: plain values, no HTML. `write_report` turns them into a page."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GalleryItem:
    """One held-out scene with what the model made of it."""

    image: UInt8[np.ndarray, "H W 3"]
    phrase: str
    polygons: tuple[Float[np.ndarray, "V 2"], ...]
    """Subpaths of the predicted path: (x, y) vertices in units of the image; empty for an empty path."""
    coarse: Bool[np.ndarray, "H W"]
    refined: Bool[np.ndarray, "H W"] | None
    """None where refinement did not run."""
    truth: Bool[np.ndarray, "H W"]
    iou_coarse: float
    iou_refined: float | None
    status: str
    """`refined` or `unrefined: why`, see `moonseg_jax.status`."""

    @property
    def iou(self) -> float:
        """IoU of the final mask: the refined one, or else the coarse one."""
        return self.iou_coarse if self.iou_refined is None else self.iou_refined


@dataclasses.dataclass(frozen=True, kw_only=True)
class GallerySection:
    """Scenes that belong together: the worst, the typical, the best."""

    title: str
    note: str
    """How they were chosen, in a sentence."""
    items: tuple[GalleryItem, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One line of a curve."""

    name: str
    steps: Int[np.ndarray, " n"]
    """Ascending."""
    values: Float[np.ndarray, " n"]
    """NaN where the value was not finite; drawn as a gap."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One small chart over steps."""

    title: str
    series: tuple[Series, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveGroup:
    """The charts of one stage, the most telling first."""

    title: str
    curves: tuple[Curve, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text; the first column names the row, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page, in the order it appears."""

    title: str
    subtitle: str
    summary: Table | None = None
    curves: tuple[CurveGroup, ...] = ()
    gallery: tuple[GallerySection, ...] = ()
    baselines: Table | None = None
    facts: tuple[tuple[str, str], ...] = ()
    """How it was made: name and value."""
    command: str = ""
    """What to type to make it again."""
    config: str = ""
    """The run's config as text, folded away."""
