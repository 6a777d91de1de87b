"""Any numbers at all: coverage stays within [0, 1], derivatives stay finite, thousands of paths to a program."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moonseg_jax.paths.raster import coverage
from moonseg_jax.types import EdgeBatch

PATHS, EDGES, SIZE = 512, 12, 10
TINY = (0, -0.0, 1e-45, 1e-38, -1e-30, 1e-13, 1e-7)
NASTY = np.array([*TINY, 1 + 1e-7, 3e3, -1e6, 1e9, -1e20, 3e38, np.inf, -np.inf, np.nan], np.float32)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], nasty: float) -> np.ndarray:
    """Lattice numbers, uniform ones, and a share of nasty ones."""
    lattice = rng.integers(-SIZE, 2 * SIZE, shape) / SIZE
    values = np.where(rng.random(shape) < 0.5, lattice, rng.uniform(-0.5, 1.5, shape))
    return np.where(rng.random(shape) < nasty, rng.choice(NASTY, shape), values).astype(np.float32)


@functools.partial(jax.jit, static_argnames="rule")
def draw(edges: EdgeBatch, frame: jax.Array, rule: str) -> tuple[jax.Array, jax.Array]:
    """Coverage, and the derivative of a sum of squares."""

    def loss(points: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = coverage(edges.replace(points=points), SIZE, frame, rule)
        return jnp.sum(drawn**2), drawn

    gradient, drawn = jax.grad(loss, has_aux=True)(edges.points)
    return drawn, gradient


@settings(max_examples=24, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    nasty=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    nasty_frames=st.sampled_from([0.0, 0.1]),
    closed=st.booleans(),
)
def test_any_path_in_any_frame_has_a_coverage(seed, nasty, nasty_frames, closed):
    """12,288 paths and frames under each rule."""
    rng = np.random.default_rng(seed)
    points = numbers(rng, (PATHS, EDGES, 2, 2), nasty)
    if closed:
        points[:, :, 1] = np.roll(points[:, :, 0], -1, axis=1)
    frame = np.where(rng.random((PATHS, 1)) < 0.5, np.float32([0, 0, 1, 1]), numbers(rng, (PATHS, 4), nasty_frames))
    batch = EdgeBatch(
        points=jnp.asarray(points),
        valid=jnp.asarray(rng.random((PATHS, EDGES)) < rng.choice([0.0, 0.7, 1.0])),
        subpath=jnp.asarray(np.sort(rng.integers(0, 4, (PATHS, EDGES)), axis=1)),
    )
    for rule in ("nonzero", "evenodd", "union"):
        drawn, gradient = map(np.asarray, draw(batch, jnp.asarray(frame, jnp.float32), rule))
        assert np.isfinite(drawn).all() and drawn.min() >= 0 and drawn.max() <= 1
        assert np.isfinite(gradient).all()
        nothing = ~np.asarray(batch.valid).any(axis=1)
        assert not drawn[nothing].any()
