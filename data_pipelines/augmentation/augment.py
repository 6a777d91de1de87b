"""All changes of a scene, one after the other."""

from __future__ import annotations

import numpy as np

from data_pipelines.augmentation.crop import cropped
from data_pipelines.augmentation.flip import flipped
from data_pipelines.augmentation.jitter import jittered
from moonseg_jax.augmentation_config import Augmentation
from moonseg_jax.types import Scene


def augment(settings: Augmentation, scene: Scene, generator: np.random.Generator) -> Scene:
    """A scene as training sees it; a function of its arguments.

    Args:
      settings: how often and how much.
      scene: one image with its phrases.
      generator: draws what is done.
    """
    wants_flip, wants_crop, wants_jitter = generator.random(3) < (settings.flip, settings.crop, settings.jitter)
    if wants_flip:
        scene = flipped(scene) or scene
    if wants_crop:
        scene = cropped(scene, settings.least_side, generator) or scene
    return jittered(scene, settings.strength, generator) if wants_jitter else scene
