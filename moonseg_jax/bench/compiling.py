"""Seconds to lower and compile a forward pass from shapes alone, without allocating parameters."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from moonseg_jax.config import PRESETS, ModelConfig
from moonseg_jax.convert.shapes import policy_shapes, refiner_shapes
from moonseg_jax.learner.forward import completion_logits
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.types import PromptBatch


def bench_compile(preset: str) -> dict[str, Any]:
    """Compiles the pass over one image, one prompt and one full completion for this machine.

    Args:
      preset: a name of `config.PRESETS`.

    Returns:
      Parameters of policy and refinement head, seconds to lower and to compile, bytes of the pass's temporaries.
    """
    config = PRESETS[preset]()
    leaves = policy_shapes(config)
    params: dict[str, Any] = {}
    for (*rooms, name), shape in leaves.items():
        functools.reduce(lambda node, room: node.setdefault(room, {}), rooms, params)[name] = _shape(shape)
    tokens = config.paths.max_new_tokens
    completion = (_shape((1, tokens), jnp.int32), _shape((1, tokens, 2), jnp.int32))
    start = time.monotonic()
    lowered = jax.jit(functools.partial(completion_logits, Moondream(config))).lower(
        params, _batch(config), *completion
    )
    middle = time.monotonic()
    compiled = lowered.compile()
    end = time.monotonic()
    memory = compiled.memory_analysis()
    return {
        "preset": preset,
        "policy_parameters": _size(leaves),
        "refiner_parameters": _size(refiner_shapes(config)),
        "lower_seconds": round(middle - start, 1),
        "compile_seconds": round(end - middle, 1),
        "temporary_bytes": memory.temp_size_in_bytes if memory is not None else None,
    }


def _batch(config: ModelConfig) -> Any:
    """Shapes of one image in one crop with one prompt."""
    vision, paths = config.vision, config.paths
    stitch = _shape((1, 1, vision.grid, vision.grid))
    return PromptBatch(
        crops=_shape((1, 1, vision.crop, vision.crop, 3), jnp.uint8), stitch_rows=stitch, stitch_cols=stitch,
        prompt_ids=_shape((1, 1, paths.max_prompt_tokens), jnp.int32),
        prompt_values=_shape((1, 1, paths.max_prompt_tokens, 2)), prompt_lengths=_shape((1, 1), jnp.int32),
        ground_truth=_shape((1, 1, paths.raster, paths.raster), bool), example_ids=_shape((1, 1), jnp.int32),
        valid=_shape((1, 1), bool),
    )  # fmt: skip


def _shape(shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _size(leaves: Any) -> int:
    return sum(functools.reduce(int.__mul__, shape, 1) for shape in leaves.values())
