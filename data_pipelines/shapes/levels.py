"""Levels of difficulty and the combinations of words that training never shows."""

from __future__ import annotations

import dataclasses

from data_pipelines.lexicon import COLOURS, KINDS
from moonseg_jax.errors import UserError

HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("yellow", "ring"),
        ("green", "crescent"),
        ("cyan", "triangle"),
        ("blue", "cross"),
        ("purple", "square"),
        ("white", "bar"),
        ("red", "frame"),
    }
)
"""Pairs of colour and kind absent from every scene of `train` and `val`; the targets of `val_unseen`."""

SEEN = tuple((colour, kind) for colour in COLOURS for kind in KINDS if (colour, kind) not in HELD_OUT)
"""All other pairs."""

SPLITS = ("train", "val", "val_unseen")
"""Splits by name; the position is part of the random key."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """What makes scenes and phrases of a level hard. Lengths are in pixels of a 96-pixel image."""

    object_counts: dict[int, float]
    """Number of objects: weight."""
    phrase_counts: tuple[int, int]
    """Fewest and most phrases of a scene."""
    phrase_weights: dict[str, float]
    """Family of phrases (attribute, size, order, relation): weight."""
    small_radius: tuple[float, float]
    large_radius: tuple[float, float]
    turn: float
    """Objects are turned by at most so many degrees, either way."""
    share_large: float
    """Probability that a fresh object is large."""
    same_colour: float
    """Probability that an object repeats an earlier object's colour, with another kind."""
    same_kind: float
    """Probability that it repeats the kind, with another colour."""
    twin: float
    """Probability that it repeats both."""
    touching: float
    """Probability that an object is placed next to another one instead of anywhere."""
    visible_share: float
    """Smallest share of an object's area that stays visible."""
    texture: float
    """Strength of textures, shading, weak edges and shadows; 0 draws flat colours."""


LEVELS = {
    1: Level(
        object_counts={2: 0.3, 3: 0.4, 4: 0.3}, phrase_counts=(4, 6),
        phrase_weights={"attribute": 1.0}, small_radius=(10, 14), large_radius=(19, 26), turn=15, share_large=0.5,
        same_colour=0.2, same_kind=0.2, twin=0.0, touching=0.0, visible_share=1.0, texture=0.0,
    ),
    2: Level(
        object_counts={2: 0.3, 3: 0.5, 4: 0.2}, phrase_counts=(5, 6),
        phrase_weights={"attribute": 0.4, "size": 0.2, "order": 0.2, "relation": 0.2},
        small_radius=(13, 16), large_radius=(21, 27), turn=15, share_large=0.6,
        same_colour=0.12, same_kind=0.25, twin=0.2, touching=0.3, visible_share=0.75, texture=1.2,
    ),
    3: Level(
        object_counts={4: 0.4, 5: 0.4, 6: 0.2}, phrase_counts=(3, 4),
        phrase_weights={"attribute": 0.15, "size": 0.2, "order": 0.2, "relation": 0.45},
        small_radius=(9, 12.5), large_radius=(17, 23), turn=180, share_large=0.45,
        same_colour=0.25, same_kind=0.25, twin=0.3, touching=0.5, visible_share=0.6, texture=1.0,
    ),
    4: Level(
        object_counts={6: 0.4, 7: 0.3, 8: 0.3}, phrase_counts=(4, 4),
        phrase_weights={"attribute": 0.1, "size": 0.2, "order": 0.2, "relation": 0.5},
        small_radius=(8.5, 11.5), large_radius=(15.5, 20), turn=180, share_large=0.35,
        same_colour=0.25, same_kind=0.25, twin=0.35, touching=0.5, visible_share=0.6, texture=1.3,
    ),
}  # fmt: skip
"""Level 2 is the one every figure of the project is taken on."""


def level_settings(level: int) -> Level:
    """Settings of a level.

    Raises:
      UserError: if there is no such level.
    """
    if level not in LEVELS:
        raise UserError(f"shapes: there is no level {level}; choose one of {', '.join(map(str, LEVELS))}")
    return LEVELS[level]
