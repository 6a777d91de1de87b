"""Axis 5, length: what tokens cost. Values lie in [-1, 0]; lengths count every completion token, box and EOS too."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def token_cost(
    length: Int[Array, "*batch"], iou: Float[Array, "*batch"], full: float, above: float
) -> Float[Array, "*batch"]:
    """-min(length / full, 1): the same price for every token, up to `full` of them.

    Args:
      length: tokens of the completion.
      iou: of its mask.
      full: tokens that cost 1.
      above: IoU below which length is free, so that a poor outline is not paid for being short; 0 for none.
    """
    return _charged(length / full, iou, above)


def excess_cost(
    length: Int[Array, "*batch"],
    reference: Int[Array, "*batch"],
    iou: Float[Array, "*batch"],
    slack: float,
    full: float,
    above: float,
) -> Float[Array, "*batch"]:
    """-clip((length / reference - slack) / full, 0, 1): only what exceeds a reference costs.

    Args:
      length: tokens of the completion.
      reference: tokens of the traced target, which RDP has simplified; values below 1 count as 1.
      iou: of the mask.
      slack: multiple of the reference that is free.
      full: further multiples of the reference that cost 1.
      above: see `token_cost`.
    """
    return _charged((length / jnp.maximum(reference, 1) - slack) / full, iou, above)


def _charged(price: Float[Array, "*batch"], iou: Float[Array, "*batch"], above: float) -> Float[Array, "*batch"]:
    return jnp.where(iou >= above, 0.0 - jnp.clip(price, 0.0, 1.0), 0.0)
