"""Scenes in order → rows of a few phrases of one image → blocks of rows, read ahead while others are judged."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from moonseg_jax.evaluation.held_out import HeldOut
from moonseg_jax.types import Example, Scene

ROW_PHRASES = 4
"""Most phrases of a row: an image with more is encoded once for every so many."""
BLOCK_PIXELS = 64_000_000
"""A block is closed early where its images have so many pixels: what lies in memory stays bounded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a phrase stands in a split; places are in the order of the log."""

    scene: int
    position: int
    """Among the phrases of its scene."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Some consecutive phrases of one image."""

    first: Place
    scene: Scene
    """With all its phrases, also those that are not judged."""
    examples: tuple[Example, ...]


def row_phrases(phrases: int | None) -> int:
    """Phrases that a row has room for where `phrases` are judged per image."""
    return min(phrases or ROW_PHRASES, ROW_PHRASES)


def rows(held_out: HeldOut, *, share: int, shares: int, after: Place | None) -> Iterator[Row]:
    """The rows of one process, in order.

    Args:
      held_out: what is judged.
      share: number of the process; it takes every `shares`-th scene from there on.
      shares: number of processes.
      after: the last phrase that was judged already; None for none.
    """
    width = row_phrases(held_out.phrases)
    for index in range(share, held_out.count, shares):
        if after is not None and index < after.scene:
            continue
        scene = held_out.read(index)
        judged = scene.examples[: held_out.phrases]
        start = after.position + 1 if after is not None and index == after.scene else 0
        for position in range(start, len(judged), width):
            yield Row(
                first=Place(scene=index, position=position), scene=scene, examples=judged[position : position + width]
            )


def blocks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Up to `size` consecutive rows each, fewer where their images are large."""
    for first in rows:
        block, pixels = [first], _pixels(first)
        for row in itertools.islice(rows, size - 1):
            block.append(row)
            pixels += _pixels(row)
            if pixels >= BLOCK_PIXELS:
                break
        yield block


def read_ahead(blocks: Iterator[list[Row]]) -> Iterator[list[Row]]:
    """The same blocks; the next one is read in a thread while the last one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(next, blocks, None)
        while (block := upcoming.result()) is not None:
            upcoming = reader.submit(next, blocks, None)
            yield block


def _pixels(row: Row) -> int:
    height, width = row.examples[0].image.shape[:2]
    return height * width
