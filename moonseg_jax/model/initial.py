"""Fresh parameters, drawn on the host: compiling the same draws takes XLA minutes on a CPU."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

DEVIATIONS = {
    # Rows of unit size: blocks add O(1) to the residual stream, and smaller embeddings would drown in it.
    "embedding": 1.0,
    "position": 0.5,
    "coord_frequencies": 2.0,
    "size_frequencies": 2.0,
    "tau_q": 0.02,
    "tau_v": 0.02,
}
"""Standard deviations of parameters that are no kernels."""


def draw_parameters(shapes: Any, seed: int) -> Any:
    """Parameters of the policy as nested dicts of float32 arrays.

    Kernels and experts are normal with variance 1 / fan-in, norms are the identity, biases and tau's position
    slope zero, the rest normal with the deviations above.

    Args:
      shapes: pytree of shapes (`jax.eval_shape` of `init`).
      seed: of the draws.

    Raises:
      KeyError: a parameter has no rule.
    """
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name in ("bias", "tau_alpha"):
            return np.zeros(leaf.shape, np.float32)
        if name == "scale":
            return np.ones(leaf.shape, np.float32)
        deviation = leaf.shape[-2] ** -0.5 if name in ("kernel", "up", "down") else DEVIATIONS[name]
        return rng.normal(0.0, deviation, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
