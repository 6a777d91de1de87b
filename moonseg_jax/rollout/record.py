"""What the engine writes down: one row per sample, wherever and whenever it was decoded."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import ModelConfig
from moonseg_jax.types import FINISH_BUDGET


@flax.struct.dataclass
class Record:
    """Completions by sample number; see `types.Rollouts`."""

    token_ids: Int[Array, "N T"]
    bins: Int[Array, "N T 2"]
    log_probs: Float[Array, "N T"]
    lengths: Int[Array, " N"]
    finish: Int[Array, " N"]
    experts: Int[Array, "L N T k"] | None


@flax.struct.dataclass
class Drawn:
    """One token of every slot."""

    token_ids: Int[Array, " S"]
    bins: Int[Array, "S 2"]
    log_probs: Float[Array, " S"]


def empty_record(config: ModelConfig, samples: int, with_experts: bool) -> Record:
    """Rows of EOS and zeros."""
    budget, text = config.paths.max_new_tokens, config.text
    experts = jnp.zeros((text.layers - text.dense_layers, samples, budget, text.active_experts), jnp.int16)
    return Record(
        token_ids=jnp.full((samples, budget), config.paths.eos, jnp.int32),
        bins=jnp.zeros((samples, budget, 2), jnp.int32),
        log_probs=jnp.zeros((samples, budget)),
        lengths=jnp.zeros((samples,), jnp.int32),
        finish=jnp.full((samples,), FINISH_BUDGET, jnp.int32),
        experts=experts if with_experts else None,
    )


def write(
    record: Record,
    sample: Int[Array, " S"],
    step: Int[Array, " S"],
    drawn: Drawn,
    experts: Int[Array, "L S 1 k"],
    finished: Bool[Array, " S"],
    finish: Int[Array, " S"],
) -> Record:
    """Writes one token of every slot; slots without a sample have a number past the last row and are dropped.

    Args:
      record: rows so far.
      sample: row of each slot.
      step: place in the row.
      drawn: the tokens.
      experts: that read them.
      finished: whether this was the sample's last token.
      finish: why.
    """
    at = (sample, step)
    ending = jnp.where(finished, sample, len(record.lengths))
    kept = record.experts
    if kept is not None:
        kept = kept.at[:, sample, step].set(experts[:, :, 0].astype(kept.dtype), mode="drop")
    return Record(
        token_ids=record.token_ids.at[at].set(drawn.token_ids, mode="drop"),
        bins=record.bins.at[at].set(drawn.bins, mode="drop"),
        log_probs=record.log_probs.at[at].set(drawn.log_probs, mode="drop"),
        lengths=record.lengths.at[sample].set(step + 1, mode="drop"),
        finish=record.finish.at[ending].set(finish, mode="drop"),
        experts=kept,
    )
