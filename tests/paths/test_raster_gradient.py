"""Derivatives with respect to vertices, against differences of exact areas in double precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapely
from raster_samples import edges, exact_areas, square, star_shaped

from moonseg_jax.paths.raster import coverage
from moonseg_jax.types import EdgeBatch

SIZE = 16
STEP = 1e-5
"""In units of the image."""


def exact_gradient(polygon: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """d sum(weights * area) / d vertices by central differences."""
    gradient = np.zeros_like(polygon)
    for index in np.ndindex(*polygon.shape):
        sides = []
        for sign in (1, -1):
            moved = polygon.copy()
            moved[index] += sign * STEP
            sides.append((weights * exact_areas(shapely.Polygon(moved * SIZE), SIZE)).sum())
        gradient[index] = (sides[0] - sides[1]) / (2 * STEP)
    return gradient


def our_gradient(polygon: np.ndarray, weights: np.ndarray, rule: str, at_once: int | None = None) -> np.ndarray:
    """The same of our coverage: every vertex ends one edge and starts the next."""
    fixed = edges([polygon], [polygon])

    def total(vertices: jax.Array) -> jax.Array:
        points = jnp.stack([vertices, jnp.roll(vertices, -1, axis=0)], axis=1)
        batch = EdgeBatch(points=jnp.stack([points, points]), valid=fixed.valid, subpath=fixed.subpath)
        return jnp.sum(jnp.asarray(weights, jnp.float32) * coverage(batch, SIZE, rule=rule, at_once=at_once)[0])

    return np.asarray(jax.jit(jax.grad(total))(jnp.asarray(polygon, jnp.float32)))


@pytest.mark.parametrize("rule", ["nonzero", "evenodd", "union"])
def test_gradient_of_random_polygons_is_exact(rule):
    rng = np.random.default_rng(0)
    polygon, weights = star_shaped(rng, 9), rng.normal(size=(SIZE, SIZE))
    exact = exact_gradient(polygon, weights)
    assert np.abs(exact).max() > 10
    np.testing.assert_allclose(our_gradient(polygon, weights, rule), exact, atol=0.02, rtol=2e-3)
    np.testing.assert_allclose(our_gradient(polygon, weights, rule, at_once=1), exact, atol=0.02, rtol=2e-3)


@pytest.mark.parametrize("rule", ["nonzero", "union"])
def test_gradient_of_upright_rectangles_is_exact(rule):
    """Level edges cover nothing, and yet their ends are what moves the most."""
    polygon = square(0.17, 0.21, 0.83, 0.66).astype(np.float32).astype(np.float64)
    weights = np.random.default_rng(1).normal(size=(SIZE, SIZE))
    exact = exact_gradient(polygon, weights)
    np.testing.assert_allclose(our_gradient(polygon, weights, rule), exact, atol=0.02, rtol=2e-3)


def test_soft_dice_pulls_a_path_onto_its_target():
    """Descent on the vertices: from IoU .23 to above .9."""
    target = coverage(edges([square(0.22, 0.31, 0.74, 0.81)]), SIZE)
    start = square(0.05, 0.1, 0.55, 0.6)
    fixed = edges([start])

    def loss(vertices: jax.Array) -> tuple[jax.Array, jax.Array]:
        points = jnp.stack([vertices, jnp.roll(vertices, -1, axis=0)], axis=1)[None]
        drawn = coverage(EdgeBatch(points=points, valid=fixed.valid, subpath=fixed.subpath), SIZE)
        both = jnp.sum(drawn * target)
        return 1 - 2 * both / (drawn.sum() + target.sum()), jnp.minimum(drawn, target).sum() / jnp.maximum(
            drawn, target
        ).sum()

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    vertices = jnp.asarray(start, jnp.float32)
    first = float(step(vertices)[0][1])
    for _ in range(150):
        (_, overlap), gradient = step(vertices)
        vertices -= 0.02 * gradient
    assert first < 0.25 and float(overlap) > 0.9


def test_the_gradient_of_many_edges_holds_nothing_of_edges_times_pixels():
    batch = edges(*[[star_shaped(np.random.default_rng(seed), 64)] for seed in range(2)])
    for rule in ("nonzero", "union"):
        program = jax.jit(
            jax.grad(lambda points, rule=rule: coverage(batch.replace(points=points), 128, rule=rule).sum())
        )
        # Some dozen results and row pieces, whatever the number of edges.
        memory = program.lower(batch.points).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 48 * (2 * 128 * 128 * 4)
