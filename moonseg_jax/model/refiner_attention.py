"""Attention of the refinement head. Letters: N images, Q queries, K keys, H heads, D width of a head, E their sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Attention(nn.Module):
    """Multi-head attention of queries over keys and values, with biases throughout."""

    width: int
    heads: int

    @nn.compact
    def __call__(
        self, queries: Float[Array, "N Q E"], keys: Float[Array, "N K E"], values: Float[Array, "N K E"]
    ) -> Float[Array, "N Q E"]:
        """Scaled dot-product attention over contiguous heads, then the output projection."""
        projected = [
            nn.Dense(self.width, name=name)(x).reshape(*x.shape[:2], self.heads, -1)
            for name, x in (("query", queries), ("key", keys), ("value", values))
        ]
        query_NQHD, key_NKHD, value_NKHD = projected
        scores_NHQK = jnp.einsum("NQHD,NKHD->NHQK", query_NQHD, key_NKHD) * query_NQHD.shape[-1] ** -0.5
        mixed_NQHD = jnp.einsum("NHQK,NKHD->NQHD", jax.nn.softmax(scores_NHQK, axis=-1), value_NKHD)
        return nn.Dense(self.width, name="out")(mixed_NQHD.reshape(*queries.shape[:2], self.width))


def attend_to_many(
    params: Mapping[str, Any], heads: int, queries: Float[Array, "N Q E"], items: Float[Array, "N K E"]
) -> Float[Array, "N Q E"]:
    """What `Attention` gives for keys = values = items, at a cost that grows with Q*K only.

    No item is projected. Keys: q (x W) = (q W') x, and their bias adds the same to all scores of a query, which
    softmax does not see. Values: the weights of a query add up to 1, so projecting comes after mixing.

    Args:
      params: of an `Attention`.
      heads: of it.
      queries: few.
      items: many.
    """
    count, few, width = queries.shape
    kernels_EHD = {name: params[name]["kernel"].reshape(width, heads, -1) for name in ("query", "key", "value")}
    bias_HD = {name: params[name]["bias"].reshape(heads, -1) for name in ("query", "value")}
    query_NQHD = jnp.einsum("NQE,EHD->NQHD", queries, kernels_EHD["query"]) + bias_HD["query"]
    looking_NQHE = jnp.einsum("NQHD,EHD->NQHE", query_NQHD, kernels_EHD["key"]) * query_NQHD.shape[-1] ** -0.5
    scores_NSK = jnp.einsum("NSE,NKE->NSK", looking_NQHE.reshape(count, few * heads, width), items)
    mixed_NSE = jnp.einsum("NSK,NKE->NSE", jax.nn.softmax(scores_NSK, axis=-1), items)
    mixed_NQHE = mixed_NSE.reshape(count, few, heads, width)
    value_NQHD = jnp.einsum("NQHE,EHD->NQHD", mixed_NQHE, kernels_EHD["value"]) + bias_HD["value"]
    return value_NQHD.reshape(count, few, width) @ params["out"]["kernel"] + params["out"]["bias"]
