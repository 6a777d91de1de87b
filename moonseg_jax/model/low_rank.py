"""Matrices that carry a low-rank change: x W + (x A) B, without W + A B ever lying anywhere (Hu et al. 2021, §4.1).

The factors are parameters beside the matrix, `kernel_factors` beside `kernel`; where there are none, nothing changes.
Neither the sum nor its gradient is made, whatever the matrix is kept in, and no change is too small for its type.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Int

BESIDE = "_factors"
"""Behind the name of a matrix: that of its factors."""
INTO, OUT_OF = "lora_a", "lora_b"
"""Names of A, `[..., in, r]`, and B, `[..., r, out]`."""


class Factors(NamedTuple):
    """A change of one matrix, or of a stack of them."""

    into: Float[Array, "... in r"]
    out_of: Float[Array, "... r out"]


class Matrices(NamedTuple):
    """A stack of matrices, one per expert, and what is added to them."""

    base: Float[Array, "E in out"]
    factors: Factors | None = None

    def of(self, expert: Int[Array, ""]) -> Matrices:
        """One of them, without the first dimension."""
        return jax.tree.map(lambda leaf: leaf[expert], self)

    def after(self, rows: Float[Array, "N in"]) -> Float[Array, "N out"]:
        """Rows times a single matrix."""
        out = rows @ self.base
        return out if self.factors is None else out + rows @ self.factors.into @ self.factors.out_of

    def after_sorted(self, rows: Float[Array, "N in"], sizes: Int[Array, " E"]) -> Float[Array, "N out"]:
        """Rows times the matrix of their own expert: the first `sizes[0]` of them times the first one, and so on."""
        out = jax.lax.ragged_dot(rows, self.base, sizes)
        if self.factors is None:
            return out
        hidden = jax.lax.ragged_dot(rows, self.factors.into, sizes)
        return out + jax.lax.ragged_dot(hidden, self.factors.out_of, sizes)


def factors_beside(module: nn.Module, name: str, dtype: Any) -> Factors | None:
    """The factors beside a module's parameter, in the type it computes in; None where there are none."""
    if not module.has_variable("params", name + BESIDE):
        return None
    found: dict[str, Array] = module.get_variable("params", name + BESIDE)
    return Factors(found[INTO].astype(dtype), found[OUT_OF].astype(dtype))
