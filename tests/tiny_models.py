"""The smallest model with every part of the real one, and scenes for it: what tests compile in seconds."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax.config import ModelConfig, RegionConfig, tiny
from moonseg_jax.policy import Policy
from moonseg_jax.types import Scene

UNIT_SIZED = ("embedding", "position", "coord_frequencies", "size_frequencies")
"""Parameters whose entries are of unit size."""

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Options of XLA that make compiling four times faster and running slower."""


def micro(experts: int = 4) -> ModelConfig:
    """Crops of 48 pixels, one dense and one routed block of width 32, completions of at most 24 tokens.

    The bins are chosen for numbers worked by hand: a coordinate is bin / 32, and four size bins down halve a
    size (bin 40 is the whole image, 36 half of it).
    """
    config = tiny()
    return dataclasses.replace(
        config,
        name="micro",
        vision=dataclasses.replace(
            config.vision, width=32, layers=1, heads=2, mlp_width=64, crop=48, projection_width=32
        ),
        text=dataclasses.replace(
            config.text, width=32, layers=2, heads=2, mlp_width=64, experts=experts, expert_width=16
        ),
        region=RegionConfig(coord_features=16, coord_bins=33, size_features=16, size_bins=41),
        refiner=dataclasses.replace(
            config.refiner, embed=32, heads=2, mask_encoder_widths=(4, 8, 16), norm_groups=4
        ),
        paths=dataclasses.replace(config.paths, max_new_tokens=24, raster=48),
    )  # fmt: skip


@functools.cache
def micro_policy(experts: int = 4) -> Policy:
    """The policy of `micro`."""
    return Policy.from_config(micro(experts))


def micro_params(experts: int = 4, seed: int = 0) -> Any:
    """Random parameters, biases included. Boxes are large and `Z` likely, so that paths cover
    something and differ in length."""
    policy = micro_policy(experts)
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name in ("kernel", "up", "down"):
            size = leaf.shape[-2] ** -0.5
        else:
            size = 1.0 if name in UNIT_SIZED else 0.1
        return (rng.normal(size=leaf.shape) * size + (name == "scale")).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, _shapes(experts))
    params["text"]["head"]["bias"][policy.vocabulary.command_ids["Z"]] += 3.0
    params["region"]["size_decoder"]["bias"].reshape(2, -1)[:, 34:] += 3.0
    return params


@functools.cache
def _shapes(experts: int) -> Any:
    return micro_policy(experts).shapes()


@functools.cache
def scenes(count: int) -> tuple[Scene, ...]:
    """Scenes of the embedded data, easiest level, 48 pixels wide, at least two phrases each."""
    return tuple(generate_scene(0, index, 1, "train", 48) for index in range(count))


def compile_quickly(jitted: Any, *args: Any) -> Callable[..., Any]:
    """A jitted function compiled for these arguments without optimisation."""
    return jitted.lower(*args).compile(compiler_options=QUICK)
