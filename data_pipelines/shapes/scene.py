"""One scene: a pure function of (seed, split, index, level, size)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from pycocotools import mask as coco_mask

from data_pipelines.shapes.draws import Draws
from data_pipelines.shapes.layout import REFERENCE_SIZE, VisibleObject, cast, look, place
from data_pipelines.shapes.levels import SPLITS, level_settings
from data_pipelines.shapes.phrases import Expression, expressions
from data_pipelines.shapes.render import render
from moonseg_jax.errors import UserError
from moonseg_jax.types import Example, Scene

EXAMPLES_PER_SCENE = 8
"""Example ids are index * 8 + position."""

_LAYOUTS_TRIED = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnScene:
    """A scene with everything that is known about it."""

    image: UInt8[np.ndarray, "H W 3"]
    objects: tuple[VisibleObject, ...]
    """Back to front."""
    expressions: tuple[Expression, ...]


def draw_scene(seed: int, index: int, level: int, split: str, size: int = REFERENCE_SIZE) -> DrawnScene:
    """Draws a scene, its exact masks and its phrases.

    Args:
      seed: of the data set, not negative.
      index: of the scene in its split, not negative.
      level: difficulty, 1 to 4.
      split: `train`, `val` or `val_unseen`.
      size: side of the image in pixels, 48 to 512.

    Raises:
      UserError: for a level, split, seed or size that does not exist.
    """
    settings = level_settings(level)
    if split not in SPLITS:
        raise UserError(f"shapes: there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise UserError(f"shapes: seed and index must not be negative (seed {seed}, index {index})")
    if not 48 <= size <= 512:
        raise UserError(f"shapes: size must lie in 48..512 pixels, not {size}")
    draws = Draws(seed, SPLITS.index(split), index)
    for _ in range(_LAYOUTS_TRIED):
        placed, labels = place(cast(settings, split, draws), settings, size, draws)
        objects = look(placed, labels)
        if objects is None or len(objects) < 2:
            continue
        said = expressions(objects, settings, split, draws)
        if len(said) >= 2:
            image = render(placed, size, settings.texture, draws)
            return DrawnScene(image=image, objects=tuple(objects), expressions=tuple(said))
    raise RuntimeError(f"no layout of {_LAYOUTS_TRIED} has two unambiguous phrases ({seed=}, {index=}, {split=})")


def generate_scene(seed: int, index: int, level: int, split: str, size: int = REFERENCE_SIZE) -> Scene:
    """Draws a scene as examples: arguments and errors as in `draw_scene`.

    Returns:
      Two to four examples of one image; `image_id` is the index.
    """
    drawn = draw_scene(seed, index, level, split, size)
    targets = {said.target: _encode(drawn.objects[said.target].mask) for said in drawn.expressions}
    return Scene(
        examples=tuple(
            Example(
                image=drawn.image,
                phrase=said.phrase,
                target=targets[said.target],
                image_id=index,
                example_id=index * EXAMPLES_PER_SCENE + position,
                tags=said.tags,
            )
            for position, said in enumerate(drawn.expressions)
        )
    )


def _encode(mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """COCO run-length encoding of a mask."""
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))
