"""The scenes that are judged, read one at a time: a split of a data set, or embedded scenes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from data_pipelines.shapes.scene import generate_scene
from data_pipelines.source import open_split
from moonseg_jax.errors import UserError
from moonseg_jax.evaluation.settings import EvalSettings
from moonseg_jax.refiner_evidence.sources import EMBEDDED_LEVEL, EMBEDDED_SEED
from moonseg_jax.types import Scene

EMBEDDED_SCENES, EMBEDDED_PHRASES = 500, 2
"""Of embedded scenes so many are judged, and so many phrases of each, unless other numbers are asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Scenes and what they are."""

    read: Callable[[int], Scene]
    """Scene 0 to `count` - 1."""
    count: int
    phrases: int | None
    """Most phrases judged per scene; None for all."""
    described: dict[str, Any]
    """Equal descriptions have equal scenes."""
    embedded: bool
    phrases_are_classes: bool
    """Whether a phrase is the name of a category, so that a mean over classes can be taken (LVIS)."""


def open_held_out(settings: EvalSettings) -> HeldOut:
    """Opens what is to be judged; nothing is read yet.

    Raises:
      UserError: there is no such data set or split, or it is damaged; reading a scene raises it for a broken image.
    """
    if settings.dataset is None:
        return _embedded(settings)
    source = open_split(settings.dataset, settings.split)

    def read(index: int) -> Scene:
        try:
            return source[index]
        except ValueError as error:
            raise UserError(
                f"{settings.dataset}, split {settings.split!r}, scene {index}: {error}; build the data set again"
            ) from error

    manifest = source.manifest
    return HeldOut(
        read=read, count=min(len(source), settings.limit or len(source)), phrases=settings.phrases,
        described={**dataclasses.asdict(manifest), "split": settings.split}, embedded=False,
        phrases_are_classes=manifest.name == "lvis",
    )  # fmt: skip


def _embedded(settings: EvalSettings) -> HeldOut:
    seed = EMBEDDED_SEED + settings.seed
    return HeldOut(
        read=lambda index: generate_scene(seed, index, EMBEDDED_LEVEL, "val"),
        count=settings.limit or EMBEDDED_SCENES, phrases=settings.phrases or EMBEDDED_PHRASES,
        described={"name": "embedded shapes", "seed": seed, "level": EMBEDDED_LEVEL, "split": "val"}, embedded=True,
        phrases_are_classes=False,
    )  # fmt: skip
