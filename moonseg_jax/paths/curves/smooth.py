"""Polygons on lattice paths → closed curves of corners and Béziers.

Source: Selinger, Potrace: a polygon-based tracing algorithm (2003), sections 2.3 and 2.4. Points are complex
numbers x + i y, so that the cross product of a and b is the imaginary part of conj(a) b.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from jaxtyping import Complex, Float, Int

from moonseg_jax.paths.curves.optimal_polygon import Moments

SHARPEST = 1.0
"""A vertex whose curve would need at least this alpha becomes a corner."""

_LEAST_ALPHA = 0.55

_FLAT = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundedPolygon:
    """Smooth pieces between the midpoints of a polygon's sides, one per vertex."""

    vertices: np.ndarray
    """complex128[m]: the adjusted polygon."""
    alphas: np.ndarray
    """float64[m]: how far a Bézier's controls go from the ends of its piece to the vertex."""
    is_corner: np.ndarray
    """bool[m]: the piece goes straight to the vertex and straight on."""
    controls: np.ndarray
    """complex128[m, 2]: control points of a Bézier; the vertex, twice, of a corner."""
    ends: np.ndarray
    """complex128[m]: where a piece ends: halfway to the next vertex."""


def smooth(moments: Moments, polygon: Int[np.ndarray, " m"], *, reverse: bool) -> RoundedPolygon:
    """Adjusts the vertices of a polygon and rounds those that are no corners (sections 2.3.1 and 2.3.3).

    Args:
      moments: of the lattice path.
      polygon: indices of its points that are vertices.
      reverse: let the curve run the other way, as holes do.
    """
    vertices = _adjusted(moments, polygon)
    if reverse:
        vertices = vertices[::-1]
    before, after = np.roll(vertices, 1), np.roll(vertices, -1)
    chord = after - before
    taxicab = np.abs(chord.real) + np.abs(chord.imag)
    height = np.abs(cross(chord, vertices - before)) / np.where(taxicab > 0, taxicab, 1.0)
    alphas = np.where(height > 1, (1 - 1 / np.maximum(height, 1.0)) / 0.75, 0.0)
    alphas = np.where(taxicab > 0, alphas, 4 / 3)
    is_corner = alphas >= SHARPEST
    rounded = np.clip(alphas, _LEAST_ALPHA, 1.0)
    share = np.where(is_corner, 1.0, 0.5 + 0.5 * rounded)
    controls = np.stack([before + share * (vertices - before), after + share * (vertices - after)], axis=1)
    return RoundedPolygon(
        vertices=vertices,
        alphas=np.where(is_corner, alphas, rounded),
        is_corner=is_corner,
        controls=controls,
        ends=(vertices + after) / 2,
    )


def cross(a: Complex[np.ndarray, "*k"], b: Complex[np.ndarray, "*k"]) -> Float[np.ndarray, "*k"]:
    """Cross product of vectors as complex numbers."""
    return a.real * b.imag - a.imag * b.real


def _adjusted(moments: Moments, polygon: Int[np.ndarray, " m"]) -> Complex[np.ndarray, " m"]:
    """Every vertex moved, by at most half a pixel per axis, to where the lines fitted to its two sides pass nearest."""
    n = len(moments.points)
    last = np.append(polygon[1:], n + polygon[0])
    centre, central = moments.stretch(polygon, last)
    xx, xy, yy = central.T
    half = (xx - yy) / 2
    radius = np.hypot(half, xy)
    # Of two ways to write the main axis, the one without cancellation: exact where it is horizontal or vertical.
    along_x, along_y = np.where(half >= 0, radius + half, xy), np.where(half >= 0, xy, radius - half)
    length = np.hypot(along_x, along_y)
    normal = np.stack([-along_y, along_x], axis=1) / np.where(length > 0, length, 1.0)[:, None]
    offset = np.einsum("md,md->m", normal, centre - moments.points[polygon])
    round_cloud = radius < _FLAT
    normal[round_cloud] = offset[round_cloud] = 0.0
    moved = []
    for vertex in range(len(polygon)):
        sides = [vertex - 1, vertex]
        relative = moments.points[polygon[sides[0]]] - moments.points[polygon[vertex]]
        offsets = np.array([offset[sides[0]] + normal[sides[0]] @ relative, offset[vertex]])
        moved.append(complex(*_nearest_in_square(normal[sides], offsets)))
    corner = moments.points[polygon]
    return corner[:, 0] + 1j * corner[:, 1] + np.array(moved)


def _nearest_in_square(normals: Float[np.ndarray, "2 2"], offsets: Float[np.ndarray, " 2"]) -> Float[np.ndarray, " 2"]:
    """The point within 1/2 of the origin, in the maximum norm, with the least sum of squared distances to two lines.

    Args:
      normals: unit normals; zero for a line that does not matter.
      offsets: of the lines along their normals.
    """
    form, pull = normals.T @ normals, normals.T @ offsets
    if abs(np.linalg.det(form)) < _FLAT:
        # Parallel lines leave a whole line of best points: of these, the nearest to the origin.
        best = np.linalg.pinv(form, rcond=1e-6) @ pull
    else:
        best = np.linalg.solve(form, pull)
    if np.abs(best).max() <= 0.5:
        return best
    candidates = [np.array(corner) for corner in itertools.product((-0.5, 0.5), repeat=2)]
    for axis, side in itertools.product((0, 1), (-0.5, 0.5)):
        other = 1 - axis
        if form[other, other] > 0:
            along = (pull[other] - form[0, 1] * side) / form[other, other]
            if abs(along) <= 0.5:
                candidates.append(np.array([side, along] if axis == 0 else [along, side]))
    return min(candidates, key=lambda point: float(point @ form @ point - 2 * pull @ point))
