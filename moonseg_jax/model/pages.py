"""Caches of decoding: a row's own keys and values in pages, of which only those in use are read.

Completions differ in length by a factor of twenty, and a cache has room for the longest. Reading all of it would
cost most of a decoding step; a list of the pages in use is made once per step and read page by page (the idea of
paged attention: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with
PagedAttention"; here a row's pages have their fixed places, so that nothing is ever allocated).

Letters: N rows, T tokens at once, P pages per row, S places per page, H heads, d head width.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import TextConfig
from moonseg_jax.model.attention_parts import WORTH_CHOOSING, Part, in_turns, merge_axis, over_keys
from moonseg_jax.platforms import platform

PAGE = 32
"""Places of a page, where a row has several."""


@flax.struct.dataclass
class Cache:
    """One layer's keys and values of the tokens decoded so far, updated in place; pages of a row are consecutive."""

    keys: Float[Array, "N*P H S d"]
    values: Float[Array, "N*P H S d"]


def layout(config: TextConfig, rows: int, places: int) -> tuple[int, int]:
    """Pages per row and places per page: one page where a layer's keys are few, else of `PAGE` places."""
    if places <= PAGE or rows * places * config.width < WORTH_CHOOSING:
        return 1, places
    return -(-places // PAGE), PAGE


def empty_caches(config: TextConfig, rows: int, places: int, dtype: jnp.dtype) -> tuple[Cache, ...]:
    """Zero caches of all layers, for `rows` sequences of up to `places` own tokens."""
    pages, page = layout(config, rows, places)
    shape = (rows * pages, config.heads, page, config.head_width)
    return tuple(Cache(keys=jnp.zeros(shape, dtype), values=jnp.zeros(shape, dtype)) for _ in range(config.layers))


def write(
    cache: Cache, keys: Float[Array, "N T H d"], values: Float[Array, "N T H d"], index: Int[Array, "N T"]
) -> Cache:
    """Puts fresh keys and values into their places.

    Args:
      cache: of N rows.
      keys: fresh ones.
      values: fresh ones.
      index: places among each row's own tokens.
    """
    page, offset = jnp.divmod(index, cache.keys.shape[2])
    page += jnp.arange(len(index))[:, None] * (len(cache.keys) // len(index))
    place = (page, slice(None), offset)
    return Cache(keys=cache.keys.at[place].set(keys), values=cache.values.at[place].set(values))


def over_pages(queries: Float[Array, "N H T d"], cache: Cache, index: Int[Array, "N T"]) -> Part:
    """Attention of fresh tokens, written already, to all own tokens up to themselves.

    Args:
      queries: of the fresh tokens.
      cache: of N rows.
      index: places of the fresh tokens, ascending in each row.

    Returns:
      a part with rows [N, H, T].
    """
    rows, page = len(queries), cache.keys.shape[2]
    pages = len(cache.keys) // rows
    if pages == 1:
        return over_keys(queries, cache.keys, cache.values, _seen(index, jnp.zeros(rows, jnp.int32), page))

    def of_some(which: Int[Array, " c"]) -> Part:
        row = which // pages
        seen = _seen(index[row], which % pages * page, page)
        return over_keys(queries[row], cache.keys[which], cache.values[which], seen)

    used = index[:, -1:] >= jnp.arange(pages) * page
    part = in_turns(of_some, used.reshape(-1), _pages_at_once(rows))
    return merge_axis(jax.tree.map(lambda leaf: leaf.reshape(rows, pages, *leaf.shape[1:]), part), axis=1)


def _seen(index: Int[Array, "n T"], first: Int[Array, " n"], page: int) -> Bool[Array, "n 1 T S"]:
    places = first[:, None] + jnp.arange(page)
    return (index[:, :, None] >= places[:, None, :])[:, None]


def _pages_at_once(rows: int) -> int:
    # A turn costs an accelerator several launches; on a CPU it costs next to nothing, and half pages are waste.
    return -(-rows // 2) if platform() == "cpu" else 2 * rows
