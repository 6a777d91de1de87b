"""FLOPs of the routed experts as the TPU compiler counts them, ahead of time and without a TPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from moonseg_jax.config import TextConfig, moondream3
from moonseg_jax.errors import UserError
from moonseg_jax.model.low_rank import Matrices
from moonseg_jax.model.moe import ragged_experts


def count_on_tpu(tokens: Sequence[int], topology: str, text: TextConfig | None = None) -> list[dict[str, Any]]:
    """Compiles one routed layer in bfloat16 for one chip and reads the compiler's own count.

    Args:
      tokens: token counts.
      topology: what to compile for, such as `v5e:2x2`.
      text: sizes; the full model's by default.

    Returns:
      For every token count: assignments, FLOPs, and FLOPs over those of the chosen experts' products alone.

    Raises:
      UserError: JAX has no TPU compiler here, or does not know the topology.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # Nobody to ask about the machine where there is no TPU.
    try:
        chips = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--tpu {topology}: no TPU compiler for it here ({str(error).splitlines()[0]}); install jax[tpu] in an "
            "environment of its own and set JAX_PLATFORMS=cpu"
        ) from error
    text = text or moondream3().text
    return [
        _count(text, count, NamedSharding(Mesh(np.array(chips[:1]), ("chip",)), PartitionSpec())) for count in tokens
    ]


def _count(text: TextConfig, tokens: int, place: NamedSharding) -> dict[str, Any]:
    def shape(*sizes: int, dtype: Any = jnp.bfloat16) -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=place)

    experts, width, inner, active = text.experts, text.width, text.expert_width, text.active_experts
    compiled = (
        jax.jit(ragged_experts)
        .lower(
            shape(tokens, width), Matrices(shape(experts, width, 2 * inner)), Matrices(shape(experts, inner, width)),
            shape(tokens, active, dtype=jnp.int32), shape(tokens, active),
        )
        .compile()
    )  # fmt: skip
    counted: Any = compiled.cost_analysis()
    # A multiplication and an addition for every weight of the chosen experts.
    ideal = 2 * tokens * active * 3 * width * inner
    return {
        "tokens": tokens, "assignments": tokens * active, "flops": counted["flops"],
        "flops_over_ideal": round(counted["flops"] / ideal, 3),
    }  # fmt: skip
