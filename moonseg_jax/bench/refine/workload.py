"""What the refiner's benchmark works on: a preset's encoder and head, and crops of embedded scenes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax.batch import true_mask
from moonseg_jax.config import PRESETS, RefinerHeadConfig
from moonseg_jax.model.refiner import init_head, make_head
from moonseg_jax.policy import Policy, load_policy
from moonseg_jax.refine import cut, load_refiner, pixel_rectangle
from moonseg_jax.shipped import shipped

SCENES, LEVEL = 5_000, 2
"""Seed and level of the scenes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """Weights as nested dicts of host arrays, and crops to refine."""

    policy: Policy
    params: Any
    head_params: Any
    crops: UInt8[np.ndarray, "N S S 3"]
    coarse: Float[np.ndarray, "N S S"]
    """Boxes of the objects, filled: 0 and 1."""

    @property
    def head(self) -> RefinerHeadConfig:
        """Sizes of the head."""
        return self.policy.config.refiner


def make_workload(preset: str, crops: int) -> Workload:
    """Crops around objects of embedded scenes, one per scene.

    Args:
      preset: `tiny` has the weights that come with the package, the others random ones.
      crops: how many.
    """
    if preset == "tiny":
        policy, params = load_policy(shipped("rl"))
        head_params = jax.device_get(load_refiner(shipped("refiner"), policy, params).head_params)
    else:
        config = PRESETS[preset]()
        policy = Policy.from_config(config)
        params, head_params = policy.init(0), init_head(make_head(config), config.vision.width, 0)
    pairs = [_crop(index, policy.config.vision.crop) for index in range(crops)]
    pixels, masks = (np.stack(parts) for parts in zip(*pairs))
    return Workload(policy=policy, params=params, head_params=head_params, crops=pixels, coarse=masks)


def _crop(index: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    example = generate_scene(SCENES, index, LEVEL, "val").examples[0]
    truth = true_mask(example)
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    (y0, y1), (x0, x1) = ((places[0], places[-1] + 1) for places in (rows, columns))
    height, width = truth.shape
    filled = np.zeros_like(truth)
    filled[y0:y1, x0:x1] = True
    box = np.array([(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height])
    return cut(example.image, filled, pixel_rectangle(box, height, width), side)
