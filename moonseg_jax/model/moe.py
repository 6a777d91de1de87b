"""Routed experts: dropless top-k mixture of gated MLPs (spec §5)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from moonseg_jax.config import TextConfig
from moonseg_jax.engines import inside_engine
from moonseg_jax.model.dense import WHOLE, dense
from moonseg_jax.model.low_rank import Matrices, factors_beside
from moonseg_jax.partition import axes_of_experts, axes_of_rows
from moonseg_jax.platforms import platform

Product = Callable[..., Array]
"""(rows, up, down, chosen experts, their weights, elsewhere) → rows. With `elsewhere` a choice may be expert E, one
more than there are: it lies on another device, and nothing is computed for it."""

MOST_BLOCK_ROWS = 64
"""Most rows per block of the padded grouped product."""


def gated(hidden: Float[Array, "... 2F"]) -> Float[Array, "... F"]:
    """The experts' activation: GELU(a) * (g + 1) with the exact GELU, a the first half and g the second."""
    active, gate = jnp.split(hidden, 2, axis=-1)
    return nn.gelu(active, approximate=False) * (gate + 1)


def on_a_mesh(
    product: Product, x_ND: Array, up_EDF: Matrices, down_EFD: Matrices, chosen_Nk: Array, weights_Nk: Array
) -> Array:
    """The product of routed experts on the mesh in use: rows where they lie, each device with its own experts.

    Rows are split over the batch axes, so that every device sorts its own rows only; experts over `expert` and
    `tensor`. Devices that hold different experts for different rows exchange the rows first, and each takes its own
    rows' sums back. Nothing is computed where a row chose an expert of another device.
    """
    rows, experts = axes_of_rows(x_ND.shape[0]), axes_of_experts(up_EDF.base.shape[0])
    shared = tuple(name for name in experts if name in rows)
    alone = tuple(name for name in experts if name not in rows)
    if not rows and not experts:
        return product(x_ND, up_EDF, down_EFD, chosen_Nk, weights_Nk)

    def own(
        x_ND: Array, up_EDF: Matrices, down_EFD: Matrices, chosen_Nk: Array, weights_Nk: Array, number_E: Array
    ) -> Array:
        if not experts:
            return product(x_ND, up_EDF, down_EFD, chosen_Nk, weights_Nk)
        if shared:
            gather = functools.partial(jax.lax.all_gather, axis_name=shared, tiled=True)
            x_ND, chosen_Nk, weights_Nk = gather(x_ND), gather(chosen_Nk), gather(weights_Nk)
        count = up_EDF.base.shape[0]
        place = chosen_Nk - number_E[0]
        is_own = (place >= 0) & (place < count)
        kept = jnp.where(is_own, weights_Nk, 0.0)
        out = product(x_ND, up_EDF, down_EFD, jnp.where(is_own, place, count), kept, elsewhere=True)
        out = jax.lax.psum(out, alone) if alone else out
        return jax.lax.psum_scatter(out, shared, tiled=True) if shared else out

    split, held = P(rows or None), P(experts or None)
    # Which experts a device holds comes as data: the TPU compiler refuses to be asked inside an engine's shard_map.
    numbers_E = jnp.arange(up_EDF.base.shape[0])
    return jax.shard_map(
        own, in_specs=(split, held, held, split, split, held), out_specs=split, check_vma=False
    )(x_ND, up_EDF, down_EFD, chosen_Nk, weights_Nk, numbers_E)  # fmt: skip


def all_experts(
    x_ND: Array, up_EDF: Matrices, down_EFD: Matrices, chosen_Nk: Array, weights_Nk: Array, elsewhere: bool = False
) -> Array:
    """Computes every expert for every token and weights the results: the cheapest form while E <= 2 k.

    At most twice the ideal FLOPs there, no sort and no gather, and it shards over tokens without communication.
    """
    experts, width, inner2 = up_EDF.base.shape
    weight_NE = jnp.einsum("Nk,NkE->NE", weights_Nk, jax.nn.one_hot(chosen_Nk, experts, dtype=weights_Nk.dtype))
    up_DEF = up_EDF.base.transpose(1, 0, 2).reshape(width, experts * inner2)
    raised_NEF = (x_ND @ up_DEF).reshape(-1, experts, inner2)
    if up_EDF.factors is not None:
        narrow_NEr = jnp.einsum("ND,EDr->NEr", x_ND, up_EDF.factors.into)
        raised_NEF += jnp.einsum("NEr,ErF->NEF", narrow_NEr, up_EDF.factors.out_of)
    hidden_NEF = gated(raised_NEF) * weight_NE[..., None].astype(x_ND.dtype)
    out_ND = hidden_NEF.reshape(x_ND.shape[0], -1) @ down_EFD.base.reshape(-1, width)
    if down_EFD.factors is not None:
        narrow_NEr = jnp.einsum("NEF,EFr->NEr", hidden_NEF, down_EFD.factors.into)
        out_ND += jnp.einsum("NEr,ErD->ND", narrow_NEr, down_EFD.factors.out_of)
    return out_ND


def grouped_experts(
    x_ND: Array, up_EDF: Matrices, down_EFD: Matrices, chosen_Nk: Array, weights_Nk: Array, elsewhere: bool = False
) -> Array:
    """Sorts assignments by expert, pads each expert to whole blocks, and multiplies block by block.

    No expert sees a token that did not choose it. `grouped_rows` says how many rows that makes.
    """
    active = chosen_Nk.shape[1]
    present = up_EDF.base.shape[0]
    experts = present + elsewhere
    block_rows = rows_per_block(chosen_Nk.size, experts)
    blocks = grouped_rows(chosen_Nk.size, experts) // block_rows
    order, slot, ends = _block_layout(chosen_Nk.reshape(-1), experts, block_rows)
    rows = jnp.zeros((blocks * block_rows, x_ND.shape[1]), x_ND.dtype).at[slot].set(x_ND[order // active])
    block_expert = jnp.minimum(jnp.searchsorted(ends, jnp.arange(blocks) * block_rows, side="right"), experts - 1)

    def one_block(block: tuple[Array, Array]) -> Array:
        own_rows, index = block
        if not elsewhere:
            return expert_of(own_rows, index)
        return jax.lax.cond(index < present, expert_of, lambda rows, _: jnp.zeros_like(rows), own_rows, index)

    def expert_of(own_rows: Array, index: Array) -> Array:
        hidden = gated(up_EDF.of(index).after(own_rows))
        return down_EFD.of(index).after(hidden)

    out = jax.lax.map(one_block, (rows.reshape(blocks, block_rows, -1), block_expert)).reshape(rows.shape)
    weight = weights_Nk.reshape(-1)[order].astype(x_ND.dtype)
    return jnp.zeros_like(x_ND).at[order // active].add(out[slot] * weight[:, None])


def ragged_experts(
    x_ND: Array, up_EDF: Matrices, down_EFD: Matrices, chosen_Nk: Array, weights_Nk: Array, elsewhere: bool = False
) -> Array:
    """Sorts assignments by expert and multiplies with `jax.lax.ragged_dot` (native on TPU)."""
    active = chosen_Nk.shape[1]
    flat = chosen_Nk.reshape(-1)
    order = jnp.argsort(flat, stable=True)
    sizes = jnp.bincount(flat, length=up_EDF.base.shape[0]).astype(jnp.int32)
    hidden = gated(up_EDF.after_sorted(x_ND[order // active], sizes))
    out = down_EFD.after_sorted(hidden, sizes)
    if elsewhere:
        # Rows behind the last group belong to no expert, and what the product leaves there is not promised.
        out = jnp.where((flat[order] < len(sizes))[:, None], out, 0.0)
    weight = weights_Nk.reshape(-1)[order].astype(x_ND.dtype)
    return jnp.zeros_like(x_ND).at[order // active].add(out * weight[:, None])


def ragged_experts_of_engines(
    x_ND: Array, up_EDF: Matrices, down_EFD: Matrices, chosen_Nk: Array, weights_Nk: Array, elsewhere: bool = False
) -> Array:
    """The same for rollout engines that are mapped: `ragged_dot` cannot be, and a device has the rows of one engine."""
    one_by_one = jax.custom_batching.sequential_vmap(functools.partial(ragged_experts, elsewhere=elsewhere))
    return one_by_one(x_ND, up_EDF, down_EFD, chosen_Nk, weights_Nk)


def rows_per_block(assignments: int, experts: int) -> int:
    """Rows per block of the grouped product: so few that padding never doubles the work.

    Each of the at most `min(assignments, experts)` experts in use is padded by fewer rows than a block has.
    """
    return min(MOST_BLOCK_ROWS, assignments // min(assignments, experts))


def grouped_rows(assignments: int, experts: int) -> int:
    """Rows the grouped product computes, whole blocks whatever is chosen; fewer than `2 * assignments`."""
    block_rows = rows_per_block(assignments, experts)
    return (assignments + min(assignments, experts) * (block_rows - 1)) // block_rows * block_rows


def _block_layout(flat: Array, experts: int, block_rows: int) -> tuple[Array, Array, Array]:
    """Sorted order of assignments, their rows in the padded layout, and where each expert's rows end there."""
    counts = jnp.bincount(flat, length=experts)
    padded = -(-counts // block_rows) * block_rows
    order = jnp.argsort(flat, stable=True)
    expert = flat[order]
    rank = jnp.arange(flat.size) - (jnp.cumsum(counts) - counts)[expert]
    ends = jnp.cumsum(padded)
    return order, (ends - padded)[expert] + rank, ends


class RoutedMLP(nn.Module):
    """Top-k routed experts: weights are the softmax over the chosen logits only, no capacity limit."""

    config: TextConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x_NTD: Float[Array, "N T D"], replay: Int[Array, "N T k"] | None = None
    ) -> tuple[Float[Array, "N T D"], Int[Array, "N T k"]]:
        """Output and the chosen experts; `replay` fixes the choice, weights still come from the current logits."""
        c = self.config
        x_ND = x_NTD.reshape(-1, c.width)
        init = nn.initializers.lecun_normal(batch_axis=0)
        shapes = {"up": (c.experts, c.width, 2 * c.expert_width), "down": (c.experts, c.expert_width, c.width)}
        up, down = (
            Matrices(self.param(name, init, shape).astype(self.dtype), factors_beside(self, name, self.dtype))
            for name, shape in shapes.items()
        )
        logits = dense(c.experts, dtype=self.dtype, name="router", splits=WHOLE)(x_ND).astype(jnp.float32)
        chosen = jax.lax.top_k(logits, c.active_experts)[1] if replay is None else replay.reshape(-1, c.active_experts)
        weights = nn.softmax(jnp.take_along_axis(logits, chosen, axis=-1))
        if c.experts <= 2 * c.active_experts:
            product = all_experts
        elif platform() == "tpu":
            product = ragged_experts_of_engines if inside_engine() else ragged_experts
        else:
            product = grouped_experts
        out = on_a_mesh(product, x_ND, up, down, chosen, weights)
        return out.reshape(x_NTD.shape), chosen.reshape(*x_NTD.shape[:2], -1)
