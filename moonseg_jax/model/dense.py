"""Linear layers whose weights may lie split over a mesh: gathered where they are used, but for `tensor`.

The compiler may also multiply by parts of a matrix and exchange rows instead. Rows are many, and of contractions whose
sides are split over different axes of three it computed wrong gradients (XLA of jax 0.10 on CPUs; `tests/test_mesh.py`
holds the sums).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array

from moonseg_jax.axes import TENSOR
from moonseg_jax.model.low_rank import factors_beside
from moonseg_jax.partition import split_as

ACROSS = (None, TENSOR)
"""Of a matrix `[in, out]`: its outputs are split over `tensor`."""
BACK = (TENSOR, None)
"""The inputs are: what such outputs are read by."""
WHOLE = (None, None)


class Linear(nn.Dense):
    """A linear layer whose matrix may carry a low-rank change."""

    splits: tuple[str | None, ...] = ACROSS

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """x W + b, and (x A) B where there are factors."""
        out = super().__call__(inputs)
        factors = factors_beside(self, "kernel", self.dtype)
        if factors is None:
            return out
        before, behind = self.splits
        hidden = inputs.astype(self.dtype) @ split_as(factors.into, (before, None))
        return out + hidden @ split_as(factors.out_of, (None, behind))


def dense(
    features: int, *, dtype: jnp.dtype, name: str | None = None, splits: tuple[str | None, ...] = ACROSS
) -> Linear:
    """A linear layer; `splits` says how its matrix lies while it is used."""
    return Linear(
        features, dtype=dtype, name=name, promote_dtype=functools.partial(_gathered, splits), splits=splits
    )  # fmt: skip


def embedding(entries: int, width: int, *, dtype: jnp.dtype, init: jax.nn.initializers.Initializer) -> nn.Embed:
    """A table of rows, its entries split over `tensor`."""
    gathered = functools.partial(_gathered_table, BACK)
    return nn.Embed(entries, width, dtype=dtype, embedding_init=init, promote_dtype=gathered)


def _gathered(
    splits: tuple[str | None, ...], *arrays: Array | None, dtype: Any = None, inexact: bool = True
) -> list[Array | None]:
    inputs, kernel, bias = promote_dtype(*arrays, dtype=dtype, inexact=inexact)
    assert kernel is not None, "a linear layer has a matrix"
    return [inputs, split_as(kernel, splits), bias]


def _gathered_table(
    splits: tuple[str | None, ...], *arrays: Array | None, dtype: Any = None, inexact: bool = True
) -> list[Array | None]:
    (table,) = promote_dtype(*arrays, dtype=dtype, inexact=inexact)
    assert table is not None, "an embedding has a table"
    return [split_as(table, splits)]
