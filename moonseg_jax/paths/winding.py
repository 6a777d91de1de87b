"""Row pieces → winding numbers averaged over pixels, walking only along the edges that a row meets.

Every row of every path goes through its own edges, in their order, all rows side by side: so many steps as the
fullest row has edges, not as there are edges. A step costs one pass over the result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from moonseg_jax.paths.row_pieces import RowPieces, covered, piece_of_rows

State = TypeVar("State")

_Standing = tuple[Array, Array, Array, Array]
"""Winding of the current subpath, its number, the largest winding so far, and whose it is."""

_WORD = 32
"""Edges whose bits share a word."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def winding(pieces: RowPieces, touched: Bool[Array, "N E H"], columns: int) -> Float[Array, "N H W"]:
    """Winding number averaged over every pixel.

    Args:
      pieces: [N, E, H] each, see `cut_at_rows`.
      touched: rows where an edge's derivative may differ from zero.
      columns: W.
    """

    def add(total: Array, _: Array, piece: RowPieces) -> Array:
        return total + covered(piece, columns)

    return _walk(pieces, pieces.height != 0, add, _zeros(pieces, columns))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def largest_winding(
    pieces: RowPieces, touched: Bool[Array, "N E H"], subpath: Int[Array, "N E"], columns: int
) -> Float[Array, "N H W"]:
    """Largest absolute winding number, averaged over every pixel, that one subpath alone has there.

    Args:
      pieces: [N, E, H] each, see `cut_at_rows`.
      touched: rows where an edge's derivative may differ from zero.
      subpath: number of each edge's subpath, ascending.
      columns: W.
    """
    return jnp.abs(_largest(pieces, subpath, columns)[0])


def _zeros(pieces: RowPieces, columns: int) -> Float[Array, "N H W"]:
    paths, _, rows = pieces.height.shape
    return jnp.zeros((paths, rows, columns), jnp.float32)


def _walk(
    pieces: RowPieces,
    meets: Bool[Array, "N E H"],
    visit: Callable[[State, Array, RowPieces], State],
    state: State,
) -> State:
    """Calls `visit(state, edge, piece)` with the next edge [N, H] that each row meets, E once there is none."""
    edges = meets.shape[1]

    def unfinished(carry: tuple[Array, State]) -> Array:
        return jnp.any(carry[0])

    def step(carry: tuple[Array, State]) -> tuple[Array, State]:
        waiting, state = carry
        edge = _first(waiting, edges)
        is_word = jnp.arange(waiting.shape[1])[:, None] == edge[:, None] // _WORD
        return jnp.where(is_word, waiting & (waiting - 1), waiting), visit(state, edge, piece_of_rows(pieces, edge))

    return jax.lax.while_loop(unfinished, step, (_packed(meets), state))[1]


def _packed(meets: Bool[Array, "N E H"]) -> UInt32[Array, "N words H"]:
    """Edge e as bit e % 32 of word e // 32."""
    paths, edges, rows = meets.shape
    words = -(-edges // _WORD)
    bits = jnp.pad(meets, ((0, 0), (0, words * _WORD - edges), (0, 0))).astype(jnp.uint32)
    bits = bits.reshape(paths, words, _WORD, rows) << jnp.arange(_WORD, dtype=jnp.uint32)[:, None]
    return jnp.sum(bits, axis=2, dtype=jnp.uint32)


def _first(waiting: UInt32[Array, "N words H"], edges: int) -> Int[Array, "N H"]:
    """The lowest number whose bit is set, or `edges`."""
    zeros_below = jax.lax.population_count(~waiting & (waiting - 1)).astype(jnp.int32)
    number = jnp.arange(waiting.shape[1])[:, None] * _WORD + zeros_below
    return jnp.min(jnp.where(waiting != 0, number, edges), axis=1)


def _largest(
    pieces: RowPieces, subpath: Int[Array, "N E"], columns: int
) -> tuple[Float[Array, "N H W"], Int[Array, "N H W"]]:
    """The winding number, with its sign, of the subpath where it is largest, and that subpath."""

    def judge(total: Array, current: Array, largest: Array, winner: Array) -> tuple[Array, Array]:
        wins = jnp.abs(total) > jnp.abs(largest)
        return jnp.where(wins, total, largest), jnp.where(wins, current[..., None], winner)

    def add(state: _Standing, edge: Array, piece: RowPieces) -> _Standing:
        total, current, largest, winner = state
        own = _subpath_of(subpath, edge, current)
        starts = (own != current)[..., None]
        best = judge(total, current, largest, winner)
        largest, winner = jnp.where(starts, best[0], largest), jnp.where(starts, best[1], winner)
        return jnp.where(starts, 0.0, total) + covered(piece, columns), own, largest, winner

    nothing = _zeros(pieces, columns)
    state = (nothing, jnp.full(nothing.shape[:2], -1), nothing, jnp.full(nothing.shape, -1))
    return judge(*_walk(pieces, pieces.height != 0, add, state))


def _subpath_of(subpath: Int[Array, "N E"], edge: Int[Array, "N H"], otherwise: Int[Array, "N H"]) -> Array:
    found = jnp.take_along_axis(subpath, edge, axis=1, mode="clip")
    return jnp.where(edge < subpath.shape[1], found, otherwise)


def _pull(
    pieces: RowPieces,
    touched: Bool[Array, "N E H"],
    columns: int,
    cotangent: Callable[[Array], Float[Array, "N H W"]],
) -> RowPieces:
    """Derivatives with respect to the pieces; `cotangent(edge)` is that of the winding number edges are part of."""
    number = jnp.arange(touched.shape[1])[:, None]

    def collect(found: RowPieces, edge: Array, piece: RowPieces) -> RowPieces:
        (pulled,) = jax.vjp(lambda piece: covered(piece, columns), piece)[1](cotangent(edge))
        here = number == edge[:, None]
        return jax.tree.map(lambda kept, one: jnp.where(here, one[:, None], kept), found, pulled)

    return _walk(pieces, touched, collect, jax.tree.map(jnp.zeros_like, pieces))


def _winding_forward(pieces: RowPieces, touched: Array, columns: int) -> tuple[Array, Any]:
    return winding(pieces, touched, columns), (pieces, touched)


def _winding_backward(columns: int, kept: Any, cotangent: Array) -> tuple[Any, ...]:
    pieces, touched = kept
    return _pull(pieces, touched, columns, lambda edge: cotangent), _no_derivative(touched)


def _largest_forward(pieces: RowPieces, touched: Array, subpath: Array, columns: int) -> tuple[Array, Any]:
    largest, winner = _largest(pieces, subpath, columns)
    return jnp.abs(largest), (pieces, touched, subpath, jnp.sign(largest), winner)


def _largest_backward(columns: int, kept: Any, cotangent: Array) -> tuple[Any, ...]:
    pieces, touched, subpath, sign, winner = kept

    def of_winner(edge: Array) -> Array:
        own = _subpath_of(subpath, edge, jnp.full_like(edge, -2))
        return jnp.where(winner == own[..., None], cotangent * sign, 0.0)

    pulled = _pull(pieces, touched, columns, of_winner)
    return pulled, _no_derivative(touched), _no_derivative(subpath)


def _no_derivative(array: Array) -> np.ndarray:
    """The cotangent JAX wants for integers and booleans."""
    return np.zeros(array.shape, jax.dtypes.float0)


winding.defvjp(_winding_forward, _winding_backward)
largest_winding.defvjp(_largest_forward, _largest_backward)
