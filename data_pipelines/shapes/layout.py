"""Which objects a scene has and where they lie: casting, placing, occlusion and exact masks."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, UInt8

from data_pipelines.lexicon import COLOURS, KINDS
from data_pipelines.shapes import raster
from data_pipelines.shapes.draws import Draws
from data_pipelines.shapes.kinds import Contour, outline, signed_area
from data_pipelines.shapes.levels import HELD_OUT, SEEN, Level

REFERENCE_SIZE = 96
"""Lengths in `Level` are pixels at this image size."""

_SMALLEST_AREA = 125.0
_SMALLEST_VISIBLE = 90
_PLACES_TRIED = 10
_PAIRS_TRIED = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Role:
    """What an object is, before it has a place."""

    colour: str
    kind: str
    size: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacedObject:
    """An object of a scene. Later objects of a scene lie in front of earlier ones."""

    role: Role
    contours: list[Contour]
    """Its whole outline in pixels, occluded parts included."""
    centre: tuple[float, float]
    """Centre of its circumscribed circle, pixels."""
    radius: float
    """Radius of that circle, pixels."""
    window: tuple[slice, slice]
    """Rows and columns that hold it, pixels."""
    coverage: UInt8[np.ndarray, "h w"]
    """Sixteenths of each pixel of the window that it covers, occluded parts included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisibleObject:
    """What can be seen and said of an object."""

    role: Role
    mask: Bool[np.ndarray, "H W"]
    """Visible pixels: at least half covered by what is seen of the object; a tie goes to the one in front."""
    centroid: tuple[float, float]
    """Mean x and y of the visible pixels, in units of the image."""


def cast(level: Level, split: str, draws: Draws) -> list[Role]:
    """Draws what the objects of a scene are, look-alikes included.

    Pairs of colour and kind are seen ones; in `val_unseen` the first one or two objects are held-out pairs.
    """
    count = draws.weighted(tuple(level.object_counts), tuple(level.object_counts.values()))
    roles: list[Role] = []
    for position in range(count):
        if split == "val_unseen" and (position == 0 or (position == 1 and draws.chance(0.5))):
            colour, kind = draws.pick(_SORTED_HELD_OUT)
        else:
            colour, kind = _pair(level, roles, draws)
        roles.append(Role(colour=colour, kind=kind, size=_size(level, colour, kind, roles, draws)))
    return roles


_SORTED_HELD_OUT = tuple(sorted(HELD_OUT))


def _pair(level: Level, roles: list[Role], draws: Draws) -> tuple[str, str]:
    """Colour and kind of the next object: fresh, or sharing words with an earlier object."""
    if not roles:
        return draws.pick(SEEN)
    model = draws.pick(roles)
    choice = draws.unit()
    for _ in range(_PAIRS_TRIED):
        pair = draws.pick(SEEN)
        if choice < level.twin:
            pair, choice = (model.colour, model.kind), 1.0
        elif choice < level.twin + level.same_colour:
            pair = (model.colour, draws.pick(KINDS))
        elif choice < level.twin + level.same_colour + level.same_kind:
            pair = (draws.pick(COLOURS), model.kind)
        twin = pair == (model.colour, model.kind)
        if (twin or pair not in HELD_OUT) and not _confusable(pair, roles):
            return pair
    return draws.pick(SEEN)


def _confusable(pair: tuple[str, str], roles: list[Role]) -> bool:
    """Whether nobody could tell which discs belong to which object."""
    colour, kind = pair
    kinds = {role.kind for role in roles if role.colour == colour} & {"disc", "dots"}
    return kind in ("disc", "dots") and bool(kinds) and {kind, *kinds} != {"disc"}


def _size(level: Level, colour: str, kind: str, roles: list[Role], draws: Draws) -> str:
    """Size word of the next object; it often differs from a look-alike's, so that size words are needed."""
    for role in roles:
        if role.kind == kind and draws.chance(0.7 if role.colour == colour else 0.5):
            return "large" if role.size == "small" else "small"
    return "large" if draws.chance(level.share_large) else "small"


def place(roles: list[Role], level: Level, size: int, draws: Draws) -> tuple[list[PlacedObject], np.ndarray]:
    """Places objects one after the other; those that fit nowhere are left out.

    Args:
      roles: what the objects are, at most 254.
      level: settings of the level.
      size: side of the image in pixels.
      draws: random stream.

    Returns:
      The placed objects, and the label map uint8[4*size, 4*size] in which object k has the label k + 1.
    """
    labels = np.zeros((size * raster.SUPERSAMPLING,) * 2, np.uint8)
    placed: list[PlacedObject] = []
    for role in roles:
        contours, radius = _shape(role, level, size / REFERENCE_SIZE, draws)
        for _ in range(_PLACES_TRIED):
            centre = _somewhere(role, radius, placed, level, size, draws)
            window = _window(centre, radius, size)
            cells = _cells(window)
            before = labels[cells].copy()
            moved = [contour + centre for contour in contours]
            raster.paint(labels, moved, len(placed) + 1)
            if _all_visible(labels, placed, window, level.visible_share):
                placed.append(
                    PlacedObject(
                        role=role,
                        contours=moved,
                        centre=centre,
                        radius=radius,
                        window=window,
                        coverage=raster.coverage(labels[cells], len(placed) + 1),
                    )
                )
                break
            labels[cells] = before
    return placed, labels


def look(placed: list[PlacedObject], labels: np.ndarray) -> list[VisibleObject] | None:
    """The visible part of every object in their order, or None where one is too small to be asked for."""
    size = labels.shape[0] // raster.SUPERSAMPLING
    smallest = _SMALLEST_VISIBLE * (size / REFERENCE_SIZE) ** 2
    taken = np.zeros((size, size), bool)
    seen = []
    for number in reversed(range(len(placed))):
        rows, columns = window = placed[number].window
        part = raster.coverage(labels[_cells(window)], number + 1) * 2 >= raster.SUPERSAMPLING**2
        part &= ~taken[window]
        taken[window] |= part
        ys, xs = np.nonzero(part)
        if len(ys) < smallest:
            return None
        mask = np.zeros((size, size), bool)
        mask[window] = part
        centroid = (
            (float(xs.mean()) + columns.start + 0.5) / size,
            (float(ys.mean()) + rows.start + 0.5) / size,
        )
        seen.append(VisibleObject(role=placed[number].role, mask=mask, centroid=centroid))
    return seen[::-1]


def _shape(role: Role, level: Level, scale: float, draws: Draws) -> tuple[list[Contour], float]:
    """Rotated and scaled contours around the origin, and their radius, in pixels."""
    unit = outline(role.kind, draws)
    low, high = level.small_radius if role.size == "small" else level.large_radius
    radius = max(draws.between(low, high), math.sqrt(_SMALLEST_AREA / sum(map(signed_area, unit)))) * scale
    turn = math.radians(draws.between(-level.turn, level.turn))
    cosine, sine = radius * math.cos(turn), radius * math.sin(turn)
    rotation = np.array([(cosine, sine), (-sine, cosine)])
    return [contour @ rotation for contour in unit], radius


def _somewhere(
    role: Role, radius: float, placed: list[PlacedObject], level: Level, size: int, draws: Draws
) -> tuple[float, float]:
    """A centre inside the image: anywhere, or next to an object, a look-alike where there is one."""
    low, high = radius + 1, size - radius - 1
    if not placed or not draws.chance(level.touching):
        return draws.between(low, high), draws.between(low, high)
    alike = [item for item in placed if item.role.colour == role.colour]
    beside = draws.pick(alike or placed)
    angle = draws.between(0, 2 * math.pi)
    distance = (radius + beside.radius) * draws.between(0.7, 1.05)
    x = beside.centre[0] + distance * math.cos(angle)
    y = beside.centre[1] + distance * math.sin(angle)
    return min(max(x, low), high), min(max(y, low), high)


def _window(centre: tuple[float, float], radius: float, size: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels a circle may touch."""
    (x, y), reach = centre, radius + 1
    return (
        slice(max(int(y - reach), 0), min(math.ceil(y + reach), size)),
        slice(max(int(x - reach), 0), min(math.ceil(x + reach), size)),
    )


def _all_visible(labels: np.ndarray, placed: list[PlacedObject], window: tuple[slice, slice], share: float) -> bool:
    """Whether every placed object that reaches into a window still shows the given share of itself."""
    for number, item in enumerate(placed):
        if _meet(item.window, window):
            visible = np.count_nonzero(labels[_cells(item.window)] == number + 1)
            if visible < share * int(item.coverage.sum()):
                return False
    return True


def _cells(window: tuple[slice, slice]) -> tuple[slice, slice]:
    """A window of pixels as a window of label-map cells."""
    rows, columns = window
    step = raster.SUPERSAMPLING
    return slice(rows.start * step, rows.stop * step), slice(columns.start * step, columns.stop * step)


def _meet(first: tuple[slice, slice], second: tuple[slice, slice]) -> bool:
    return all(one.start < other.stop and other.start < one.stop for one, other in zip(first, second))
