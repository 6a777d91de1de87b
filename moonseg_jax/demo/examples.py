"""Pictures to begin with: embedded scenes, drawn on the spot, with a phrase and its true mask."""

from __future__ import annotations

import functools

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax.batch import true_mask
from moonseg_jax.demo.visit import Visit

SCENES = (0, 1, 2, 3, 4, 5)
"""Of the held-out split."""
LEVEL, SEED = 2, 0
"""As the shipped weights were trained and judged."""


@functools.cache
def examples() -> tuple[Visit, ...]:
    """Visits that begin with a photo, a phrase and the phrase's mask."""
    firsts = [generate_scene(SEED, index, LEVEL, "val").examples[0] for index in SCENES]
    return tuple(Visit(photo=one.image, known_phrase=one.phrase, truth=true_mask(one)) for one in firsts)
