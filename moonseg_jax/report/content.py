"""What a report shows: plain values, no HTML. `write_report` turns them into a page."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from moonseg_jax.gallery.scenes import GalleryItem, GallerySection


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScenePair:
    """One held-out scene as two runs see it; photo, phrase and ground truth are the same."""

    first: GalleryItem
    second: GalleryItem

    @property
    def difference(self) -> float:
        """IoU of the second run's final mask less that of the first's."""
        return self.second.iou - self.first.iou


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedGallery:
    """The scenes that two runs both kept."""

    names: tuple[str, str]
    """Of the runs."""
    note: str
    pairs: tuple[ScenePair, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GroupSample:
    """One completion of a group."""

    polygons: tuple[Float[np.ndarray, "V 2"], ...]
    """Subpaths: (x, y) vertices in units of the image; empty where nothing was drawn."""
    mask: Bool[np.ndarray, "R R"]
    iou: float
    reward: float
    advantage: float
    tokens: int
    remark: str = ""
    """What is out of the ordinary: out of budget, put beside the group."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampleGroup:
    """The samples of one prompt, the largest advantage first."""

    photo: UInt8[np.ndarray, "S S 3"]
    phrase: str
    truth: Bool[np.ndarray, "R R"]
    samples: tuple[GroupSample, ...]
    flat: bool
    """Whether it was filtered out: all its samples have the same raw IoU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groups:
    """Groups of one step of reinforcement learning."""

    title: str
    note: str
    """Which step, how many groups there were, how many of them were filtered out."""
    groups: tuple[SampleGroup, ...]


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
    metric: str = ""
    """Its name in `metrics.jsonl`, where the title is another."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurvePart:
    """Charts of one kind: held-out figures, reward, time."""

    title: str
    curves: tuple[Curve, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveGroup:
    """The charts of one stage, the most telling kind first."""

    title: str
    parts: tuple[CurvePart, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TimeSplit:
    """Where the seconds of a stage went, log by log."""

    title: str
    parts: tuple[str, ...]
    """In the order of a step; the last is what no part was timed for."""
    steps: Int[np.ndarray, " n"]
    """At which each log was written, ascending."""
    seconds: Float[np.ndarray, "n parts"]
    """Of all steps of a log together."""
    note: str = ""


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
    summary: tuple[Table, ...] = ()
    gallery: tuple[GallerySection, ...] = ()
    paired: PairedGallery | None = None
    """In place of the gallery, where two runs stand side by side."""
    groups: tuple[Groups, ...] = ()
    curves: tuple[CurveGroup, ...] = ()
    time: tuple[TimeSplit, ...] = ()
    baselines: Table | None = None
    settings: Table | None = None
    """In which two runs differ."""
    facts: tuple[tuple[str, str], ...] = ()
    """How it was made: name and value."""
    command: str = ""
    """What to type to make it again."""
    config: str = ""
    """The run's config as text, folded away."""
