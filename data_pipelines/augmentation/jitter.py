"""Changing brightness, contrast and saturation; never the hue, because phrases name colours."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageEnhance

from moonseg_jax.types import Scene

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def jittered(scene: Scene, strength: float, generator: np.random.Generator) -> Scene:
    """The scene in another light, the three changes in random order.

    Args:
      scene: one image with its phrases.
      strength: every factor is drawn from 1 - strength to 1 + strength.
      generator: draws factors and order.
    """
    picture = Image.fromarray(scene.examples[0].image)
    for number in generator.permutation(len(ENHANCERS)):
        picture = ENHANCERS[number](picture).enhance(float(generator.uniform(1 - strength, 1 + strength)))
    image = np.asarray(picture)
    return Scene(examples=tuple(dataclasses.replace(example, image=image) for example in scene.examples))
