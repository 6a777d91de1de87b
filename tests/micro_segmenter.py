"""A segmenter of the smallest model, random weights: for everything but what masks look like."""

import functools

import jax
from tiny_models import micro, micro_params, micro_policy

from moonseg_jax.model.refiner import init_head, make_head
from moonseg_jax.predict import Segmenter
from moonseg_jax.refine import Refiner


@functools.cache
def micro_segmenter() -> Segmenter:
    """With a refiner; batches of 4 rows."""
    config = micro()
    head = init_head(make_head(config), config.vision.width, seed=0)
    params = jax.device_put(micro_params())
    return Segmenter(micro_policy(), params, Refiner(micro_policy(), params, head, batch=1, iterations=1))
