"""Axis 8, credit in hindsight: a sequence's reward split over its subpaths and placed on tokens.

A subpath's share depends on the later ones, so returns without the earlier shares would bias a policy gradient:
training pays subpaths by `potential`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.paths.raster import coverage
from moonseg_jax.paths.vocabulary import COMMANDS, TokenTables
from moonseg_jax.rewards.overlap import mask_iou
from moonseg_jax.types import EdgeBatch

_MOVES = (COMMANDS.index("M"), COMMANDS.index("m"))


def marginal_ious(
    edges: EdgeBatch, truth: Bool[Array, "R R"], subpaths: int
) -> tuple[Float[Array, " S"], Bool[Array, " S"]]:
    """What the IoU loses when a subpath is left out; negative for a subpath that does harm.

    Args:
      edges: of one path, without the leading dimension.
      truth: ground truth; the path is drawn at its raster, once per subpath.
      subpaths: S, the most that are told apart; later ones are drawn always and get 0.

    Returns:
      IoU(all) - IoU(all but k), and whether there is a subpath k.
    """

    def drawn_iou(kept: Bool[Array, " E"]) -> Float[Array, ""]:
        one = EdgeBatch(points=edges.points[None], valid=kept[None], subpath=edges.subpath[None])
        return mask_iou(coverage(one, truth.shape[-1]), truth[None])[0]

    # No subpath has the number -1: nothing is left out.
    without = jax.lax.map(lambda k: drawn_iou(edges.valid & (edges.subpath != k)), jnp.arange(-1, subpaths))
    present = jnp.any(edges.valid & (edges.subpath == jnp.arange(subpaths)[:, None]), axis=1)
    return jnp.where(present, without[0] - without[1:], 0.0), present


def split_reward(
    reward: Float[Array, ""], marginals: Float[Array, " S"], present: Bool[Array, " S"]
) -> Float[Array, " S"]:
    """Shares of a reward: each subpath's marginal, plus an equal part of what the marginals leave over.

    The shares sum to the reward, and differ as the marginals do (equal allocation of non-separable costs, Moulin
    1985). Without any subpath all shares are 0.
    """
    count = jnp.maximum(jnp.sum(present), 1)
    left = reward - jnp.sum(jnp.where(present, marginals, 0.0))
    return jnp.where(present, marginals + left / count, 0.0)


def subpath_of_tokens(
    token_ids: Int[Array, "N T"], lengths: Int[Array, " N"], tables: TokenTables
) -> Int[Array, "N T"]:
    """Number of the subpath that a path token writes, from 0, as `EdgeBatch` numbers them; -1 for all others."""
    within = jnp.arange(token_ids.shape[1]) < lengths[:, None]
    commands = jnp.where(within, tables.commands[token_ids], -1)
    is_path = within & ((commands >= 0) | (tables.values[token_ids] >= 0))
    moves = jnp.isin(commands, jnp.asarray(_MOVES))
    return jnp.where(is_path, jnp.cumsum(moves, axis=1) - 1, -1)


def token_reward(
    reward: Float[Array, ""],
    shares: Float[Array, " S"],
    token_subpath: Int[Array, " T"],
    length: Int[Array, ""],
) -> Float[Array, " T"]:
    """Each share on the last token of its subpath, and what is not placed so on the completion's last token.

    Sums to the reward, so that the return from the first token is the sequence's reward.

    Args:
      reward: of the sequence.
      shares: see `split_reward`.
      token_subpath: see `subpath_of_tokens`.
      length: tokens of the completion, at least 1.
    """
    position = jnp.arange(token_subpath.shape[0])
    numbers = jnp.arange(shares.shape[0])
    last = jnp.max(jnp.where(token_subpath == numbers[:, None], position, -1), axis=1)
    placed = (
        jnp.zeros(position.shape, jnp.float32).at[jnp.where(last >= 0, last, position.size)].add(shares, mode="drop")
    )
    return placed + jnp.where(position == length - 1, reward - jnp.sum(placed), 0.0)
