"""The smallest model with every part of the real one, and scenes for it: what tests compile in a second or two."""

import dataclasses
import functools

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax.config import ModelConfig, RegionConfig, tiny
from moonseg_jax.policy import Policy
from moonseg_jax.types import Scene


def micro(experts: int = 4) -> ModelConfig:
    """Crops of 48 pixels, one dense and one routed block of width 32, completions of at most 24 tokens.

    The bins are chosen for numbers worked by hand: a coordinate is bin / 32, and every fourth size bin halves
    the size (bin 40 is the whole image, 36 half of it).
    """
    config = tiny()
    return dataclasses.replace(
        config,
        name="micro",
        vision=dataclasses.replace(
            config.vision, width=32, layers=1, heads=2, mlp_width=64, crop=48, projection_width=32
        ),
        text=dataclasses.replace(
            config.text, width=32, layers=2, dense_layers=1, heads=2, mlp_width=64, experts=experts, expert_width=16
        ),
        region=RegionConfig(coord_features=16, coord_bins=33, size_features=16, size_bins=41),
        refiner=dataclasses.replace(config.refiner, embed=32, heads=2, mask_encoder_widths=(4, 8, 16), norm_groups=4),
        paths=dataclasses.replace(config.paths, max_new_tokens=24, raster=48),
    )  # fmt: skip


@functools.cache
def micro_policy(experts: int = 4) -> Policy:
    """The policy of `micro`."""
    return Policy.from_config(micro(experts))


@functools.cache
def scenes(count: int, first: int = 0) -> tuple[Scene, ...]:
    """Scenes of the embedded data, easiest level, 48 pixels wide."""
    return tuple(generate_scene(0, first + index, 1, "train", 48) for index in range(count))
