"""Objects, honest outlines of them, and the hacks; as rows to be judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from moonseg_jax.paths.raster import coverage
from moonseg_jax.rewards.row import RewardRow
from moonseg_jax.types import FINISH_BUDGET, FINISH_CLOSED, EdgeBatch

SIDE, SLOTS = 96, 256
Polygons = Sequence[np.ndarray]

draw = jax.jit(lambda edges: coverage(edges, SIDE))


def ring(cx: float, cy: float, rx: float, ry: float, vertices: int, wave: float = 0.0, turn: float = 0.0) -> np.ndarray:
    """A closed outline around a centre; the wave bends it three times."""
    angle = turn + 2 * np.pi * np.arange(vertices) / vertices
    radius = 1 + wave * np.sin(3 * angle + 1)
    return np.stack([cx + rx * radius * np.cos(angle), cy + ry * radius * np.sin(angle)], axis=1)


def bar(start: tuple[float, float], end: tuple[float, float], width: float, vertices: int) -> np.ndarray:
    """A slanted bar whose two long sides have vertices."""
    along = np.linspace(0, 1, vertices // 2)[:, None]
    axis = np.array(end) - np.array(start)
    across = width / 2 * np.array([-axis[1], axis[0]]) / np.linalg.norm(axis)
    middle = np.array(start) + along * axis + 0.03 * np.sin(np.pi * along) * np.array([1.0, 0.0])
    return np.concatenate([middle + across, (middle - across)[::-1]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Object:
    true: Polygons
    honest: Polygons
    """A rough outline of few vertices."""
    inside: tuple[float, float]
    """A point inside both."""


OBJECTS = {
    "blob": Object(
        true=[ring(0.45, 0.55, 0.25, 0.2, 24, 0.15)],
        honest=[ring(0.455, 0.545, 0.25, 0.2, 10, 0.12)],
        inside=(0.45, 0.55),
    ),
    "thin": Object(
        true=[bar((0.15, 0.2), (0.85, 0.8), 0.06, 16)],
        honest=[bar((0.16, 0.21), (0.84, 0.795), 0.055, 8)],
        inside=(0.53, 0.5),
    ),
    "hole": Object(
        true=[ring(0.5, 0.5, 0.3, 0.35, 20), ring(0.5, 0.5, 0.15, 0.2, 14)[::-1]],
        honest=[ring(0.505, 0.5, 0.3, 0.35, 10), ring(0.5, 0.5, 0.15, 0.2, 7)[::-1]],
        inside=(0.72, 0.5),
    ),
    "two parts": Object(
        true=[ring(0.25, 0.3, 0.15, 0.18, 18, 0.1), ring(0.7, 0.7, 0.2, 0.12, 18)],
        honest=[ring(0.255, 0.3, 0.15, 0.18, 9, 0.1), ring(0.7, 0.695, 0.2, 0.12, 8)],
        inside=(0.25, 0.3),
    ),
}


def tokens(polygons: Polygons) -> int:
    """Length of the completion: three of the box, `M` and `Z` around the numbers of each subpath, EOS."""
    return 4 + sum(2 + 2 * len(polygon) for polygon in polygons)


def bounds(polygons: Polygons) -> np.ndarray:
    """Box cx, cy, w, h around polygons; zeros around none."""
    if not polygons:
        return np.zeros(4)
    points = np.concatenate(polygons)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([(low + high) / 2, high - low])


def rectangle(cx: float, cy: float, w: float, h: float) -> np.ndarray:
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    return np.array([cx, cy]) + corners * np.array([w, h])


def with_idle_vertices(polygons: Polygons, parts: int) -> list[np.ndarray]:
    """The same outlines with every edge divided."""
    share = np.arange(parts)[:, None] / parts
    return [
        np.concatenate([start + share * (end - start) for start, end in zip(polygon, np.roll(polygon, -1, axis=0))])
        for polygon in polygons
    ]


def answers(one: Object) -> dict[str, tuple[Polygons, np.ndarray, int]]:
    """Honest outline and hacks of an object: polygons, box, finish reason."""
    honest, box = one.honest, bounds(one.honest)
    specks = [rectangle(*one.inside, 0.004, 0.004)] * 24
    whole = np.array([0.5, 0.5, 1.0, 1.0])
    return {
        "honest": (honest, box, FINISH_CLOSED),
        "box_echo": ([rectangle(*bounds(one.true))], bounds(one.true), FINISH_CLOSED),
        "full_frame": ([rectangle(*whole)], whole, FINISH_CLOSED),
        "empty": ([], bounds(one.true), FINISH_CLOSED),
        "tiny_subpaths": ([*honest, *specks], box, FINISH_CLOSED),
        "overlong": (with_idle_vertices(honest, 8), box, FINISH_CLOSED),
        "overlong without end": (with_idle_vertices(honest, 8), box, FINISH_BUDGET),
        "specks alone": (specks, box, FINISH_CLOSED),
    }


def edge_batch(paths: Sequence[Polygons], slots: int = SLOTS) -> EdgeBatch:
    """One row per path, on the host."""
    points, subpath = np.zeros((len(paths), slots, 2, 2), np.float32), np.zeros((len(paths), slots), np.int32)
    valid = np.zeros((len(paths), slots), bool)
    for row, polygons in enumerate(paths):
        at = 0
        for number, polygon in enumerate(polygons):
            here = slice(at, at + len(polygon))
            points[row, here] = np.stack([polygon, np.roll(polygon, -1, axis=0)], axis=1)
            subpath[row, here], valid[row, here] = number, True
            at += len(polygon)
    return EdgeBatch(points=points, valid=valid, subpath=subpath)


def judged_rows() -> tuple[list[tuple[str, str]], RewardRow]:
    """Every answer to every object: (object, answer) names, and the rows."""
    names = [(name, answer) for name, one in OBJECTS.items() for answer in answers(one)]
    given = [answers(OBJECTS[name])[answer] for name, answer in names]
    paths = [*(polygons for polygons, _, _ in given), *(one.true for one in OBJECTS.values())]
    drawn = np.asarray(draw(edge_batch(paths)))
    truth = dict(zip(OBJECTS, drawn[len(given) :] > 0.5))
    return names, RewardRow(
        coverage=drawn[: len(given)],
        truth=np.stack([truth[name] for name, _ in names]),
        box=np.stack([box for _, box, _ in given]).astype(np.float32),
        length=np.asarray([tokens(polygons) for polygons, _, _ in given]),
        reference_length=np.asarray([tokens(OBJECTS[name].true) for name, _ in names]),
        finish=np.asarray([finish for _, _, finish in given]),
        edges=edge_batch(paths[: len(given)]),
    )
