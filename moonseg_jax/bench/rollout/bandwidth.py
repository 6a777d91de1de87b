"""How near decoding comes to the bound that memory sets: every step reads weights, keys and values once."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from moonseg_jax.bench.rollout.ours import time_engine
from moonseg_jax.bench.rollout.workload import Workload
from moonseg_jax.bench.timing import fastest
from moonseg_jax.rollout.memory import bytes_of, kv_bytes_per_token
from moonseg_jax.rollout.settings import Sampling

COPIED = 1 << 28
"""Bytes of the array that is copied: more than any cache holds."""
PASSES = 16


def bandwidth_share(work: Workload, slots: int, repeats: int) -> dict[str, float]:
    """Time of a step with all slots busy, against the least that memory allows.

    The bound is the bytes a step must read, over the measured bandwidth of a copy: the decoder's weights (of routed
    experts those that so many tokens reach on average), the logits' and region heads', the resident prefixes once
    each, and every slot's own keys and values so far, not those its cache has room for. Prefill cancels: two runs
    differ in the length of all paths only.
    """
    images = slots // work.group
    some = work.first(images)
    short, long = 32, 96
    seconds = []
    for tokens in (short, long):
        even = dataclasses.replace(some, budgets=np.full(slots, tokens, np.int32))
        seconds.append(time_engine(even, Sampling(group=work.group), repeats)["seconds"])
    step = (seconds[1] - seconds[0]) / (long - short)
    itemsize = jax.tree.leaves(work.params)[0].dtype.itemsize
    per_token = kv_bytes_per_token(work.policy.config, itemsize)
    config = work.policy.config
    prefixes = images * per_token * (config.prefix_tokens + config.paths.max_prompt_tokens)
    own = slots * per_token * (short + long) // 2
    weights = weights_read(work, slots)
    bandwidth = copy_bandwidth(repeats)
    return {
        "slots": slots, "seconds_per_step": float(f"{step:.4g}"), "weight_bytes": weights, "prefix_bytes": prefixes,
        "own_kv_bytes": own, "copy_bandwidth_gb_per_second": round(bandwidth / 1e9, 2),
        "share_of_bandwidth_bound": round((weights + prefixes + own) / bandwidth / step, 3),
    }  # fmt: skip


def weights_read(work: Workload, tokens: int) -> int:
    """Bytes of the weights that a step of so many tokens must read."""
    text, config = work.params["text"], work.policy.config.text
    experts = {name: leaf for name, leaf in text["routed"]["moe"].items() if name in ("up", "down")}
    # Each token leaves an expert alone with probability 1 - k/E.
    reached = 1 - (1 - config.active_experts / config.experts) ** tokens
    rest = bytes_of(text["dense"]) + bytes_of(text["routed"]) - bytes_of(experts)
    head = bytes_of(text["head"]) * len(work.policy.grammar.choices) // config.vocabulary
    return int(rest + reached * bytes_of(experts)) + head + bytes_of(work.params["region"])


def copy_bandwidth(repeats: int) -> float:
    """Bytes per second that one device reads and writes, in place, over an array larger than its caches."""
    source = jnp.zeros(COPIED // 4, jnp.float32)
    passes = jax.jit(lambda x: jax.lax.fori_loop(0, PASSES, lambda _, x: x + 1.0, x))
    return 2 * PASSES * COPIED / fastest(lambda: jax.block_until_ready(passes(source)), repeats).wall
