"""Referring expressions that fit exactly one object of a scene.

The rules, which hold for every level:
- a noun phrase fits every object that has all its words (size, colour, kind; `object` fits any kind);
- "the leftmost X" is the X with the smallest centroid x, at least `MARGIN` ahead of every other X;
- "the X left of the Y" needs a single Y; the X lies at least `MARGIN` to its left, and every other X at least
  `MARGIN` to its right. The same for right, above, below (y grows downwards).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from data_pipelines.lexicon import ANY_KIND, ARTICLE, ORDERS, RELATIONS
from data_pipelines.shapes.draws import Draws
from data_pipelines.shapes.layout import VisibleObject
from data_pipelines.shapes.levels import HELD_OUT, Level

MARGIN = 0.05
"""Smallest difference of centroids, in units of the image, that counts as a difference of place."""

_TRIES = 10
# Direction of a word: (axis, sign); an object is further along it where sign * centroid[axis] is smaller.
_ORDER_DIRECTIONS = dict(zip(ORDERS, ((0, 1), (0, -1), (1, 1), (1, -1))))
_RELATION_DIRECTIONS = dict(zip(RELATIONS, ((0, 1), (0, -1), (1, 1), (1, -1))))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noun:
    """The descriptive words of a noun phrase; None where a word is left out."""

    size: str | None = None
    colour: str | None = None
    kind: str | None = None

    def fits(self, item: VisibleObject) -> bool:
        """Whether an object has all the words."""
        role = item.role
        return self.size in (None, role.size) and self.colour in (None, role.colour) and self.kind in (None, role.kind)

    def words(self) -> list[str]:
        """The words in their order of speech, without the article."""
        return [word for word in (self.size, self.colour, self.kind or ANY_KIND) if word]

    def tags(self) -> list[str]:
        """Names of the attributes that are said."""
        return [name for name in ("size", "colour", "kind") if getattr(self, name)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expression:
    """A phrase and the one object it means."""

    phrase: str
    target: int
    """Index of the object in the scene."""
    tags: tuple[str, ...]
    """What the phrase says: size, colour, kind, order, relation."""


def expressions(objects: Sequence[VisibleObject], level: Level, split: str, draws: Draws) -> list[Expression]:
    """Draws the phrases of a scene: distinct ones, for distinct objects where possible.

    In `val_unseen` the targets are held-out pairs of colour and kind, and the phrases say both words.

    Returns:
      At most `level.phrase_counts[1]` expressions, possibly none.
    """
    unseen = split == "val_unseen"
    eligible = [k for k, item in enumerate(objects) if not unseen or (item.role.colour, item.role.kind) in HELD_OUT]
    chosen: list[Expression] = []
    if not eligible:
        return chosen
    families, weights = tuple(level.phrase_weights), tuple(level.phrase_weights.values())
    low, high = level.phrase_counts
    for _ in range(low + draws.below(high - low + 1)):
        family = draws.weighted(families, weights)
        for attempt in range(2 * _TRIES):
            fresh = [k for k in eligible if all(k != earlier.target for earlier in chosen)]
            target = draws.pick(fresh if fresh and draws.chance(0.8) else eligible)
            found = _FAMILIES[family if attempt < _TRIES else "attribute"](objects, target, unseen, draws)
            if found and all(found.phrase != earlier.phrase for earlier in chosen):
                chosen.append(found)
                break
    return chosen


def _noun(item: VisibleObject, unseen: bool, draws: Draws) -> Noun:
    """Colour and kind, or one of them."""
    said = 0.0 if unseen else draws.unit()
    return Noun(
        colour=None if 0.5 <= said < 0.7 else item.role.colour,
        kind=None if said >= 0.7 else item.role.kind,
    )


def _fitting(objects: Sequence[VisibleObject], noun: Noun) -> list[int]:
    return [k for k, item in enumerate(objects) if noun.fits(item)]


def _expression(words: list[str], target: int, tags: list[str]) -> Expression:
    return Expression(phrase=" ".join((ARTICLE, *words)), target=target, tags=tuple(tags))


def _attribute(objects: Sequence[VisibleObject], target: int, unseen: bool, draws: Draws) -> Expression | None:
    noun = _noun(objects[target], unseen, draws)
    if len(_fitting(objects, noun)) > 1:
        return None
    return _expression(noun.words(), target, noun.tags())


def _size(objects: Sequence[VisibleObject], target: int, unseen: bool, draws: Draws) -> Expression | None:
    """Said only where the size word is needed."""
    noun = _noun(objects[target], unseen, draws)
    sized = dataclasses.replace(noun, size=objects[target].role.size)
    if len(_fitting(objects, noun)) < 2 or len(_fitting(objects, sized)) > 1:
        return None
    return _expression(sized.words(), target, sized.tags())


def _order(objects: Sequence[VisibleObject], target: int, unseen: bool, draws: Draws) -> Expression | None:
    noun = _noun(objects[target], unseen, draws)
    if not unseen and draws.chance(0.2):
        noun = Noun()
    word = draws.pick(ORDERS)
    axis, sign = _ORDER_DIRECTIONS[word]
    others = [k for k in _fitting(objects, noun) if k != target]
    place = sign * objects[target].centroid[axis]
    if not others or any(sign * objects[k].centroid[axis] < place + MARGIN for k in others):
        return None
    return _expression([word, *noun.words()], target, ["order", *noun.tags()])


def _relation(objects: Sequence[VisibleObject], target: int, unseen: bool, draws: Draws) -> Expression | None:
    """Mostly said where the noun alone does not tell the object."""
    noun = _noun(objects[target], unseen, draws)
    if draws.chance(0.2):
        noun = dataclasses.replace(noun, size=objects[target].role.size)
    rivals = [k for k in _fitting(objects, noun) if k != target]
    landmark = draws.below(len(objects))
    if landmark == target or (not rivals and draws.chance(0.7)):
        return None
    landmark_noun = _noun(objects[landmark], False, draws)
    if len(_fitting(objects, landmark_noun)) > 1:
        return None
    words = draws.pick(RELATIONS)
    axis, sign = _RELATION_DIRECTIONS[words]
    place = sign * objects[landmark].centroid[axis]
    if sign * objects[target].centroid[axis] > place - MARGIN:
        return None
    if any(sign * objects[k].centroid[axis] < place + MARGIN for k in rivals if k != landmark):
        return None
    tags = sorted({"relation", *noun.tags(), *landmark_noun.tags()})
    return _expression([*noun.words(), *words, ARTICLE, *landmark_noun.words()], target, tags)


_FAMILIES = {"attribute": _attribute, "size": _size, "order": _order, "relation": _relation}
