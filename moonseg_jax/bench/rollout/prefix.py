"""What it saves to encode and prefill once per group instead of once per sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from moonseg_jax.bench.rollout.ours import time_engine
from moonseg_jax.bench.rollout.workload import Workload
from moonseg_jax.rollout.memory import kv_bytes_per_token
from moonseg_jax.rollout.settings import Sampling


def prefix_saving(work: Workload, images: int, repeats: int, groups: Sequence[int] = (8, 16)) -> list[dict[str, float]]:
    """Groups over shared prefixes against as many prompts of one sample each.

    Returns:
      For every group size: seconds both ways and how many times as fast sharing is; bytes of keys and values that
      a further sample of a group takes at its longest, and what it would take with a prefix of its own.
    """
    config = work.policy.config
    per_token = kv_bytes_per_token(config)
    own = per_token * config.paths.max_new_tokens
    prefix = per_token * (config.prefix_tokens + config.paths.max_prompt_tokens)
    rows = []
    for group in groups:
        some = work.first(images)
        budgets = np.resize(work.budgets, images * group)
        shared = dataclasses.replace(some, group=group, budgets=budgets)
        apart = dataclasses.replace(
            shared, group=1, examples=tuple(example for example in some.examples for _ in range(group)),
            batch=jax.tree.map(lambda leaf, group=group: np.repeat(leaf, group, axis=0), some.batch),
        )  # fmt: skip
        slots = images * group
        together, alone = (
            time_engine(way, Sampling(group=way.group, slots=slots), repeats)["seconds"] for way in (shared, apart)
        )
        rows.append(
            {
                "group": group, "seconds_shared": together, "seconds_prefilling_every_sample": alone,
                "times_as_fast": round(alone / together, 2), "kv_bytes_per_further_sample": own,
                "kv_bytes_with_own_prefix": own + prefix,
            }
        )  # fmt: skip
    return rows
