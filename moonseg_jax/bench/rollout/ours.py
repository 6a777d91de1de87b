"""The engine, timed: on one device, and on all of them with an engine each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from moonseg_jax.axes import ENGINES
from moonseg_jax.bench.rollout.workload import Workload
from moonseg_jax.bench.timing import Timed, fastest
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import sample_keys
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.sharding import make_mesh, put_batch, put_replicated
from moonseg_jax.types import PromptBatch


def engine(work: Workload, sampling: Sampling) -> Callable[..., tuple[Any, Any]]:
    """(parameters, batch, budgets) → lengths, and [useful slot-steps, slot-steps] as one row.

    The sum of log-probabilities goes with the lengths, so that no work can be left out.
    """
    policy = work.policy

    def run(params: Any, batch: PromptBatch, budgets: Any) -> tuple[Any, Any]:
        keys = sample_keys(jax.random.key(0), 0, batch.example_ids, sampling.group)
        rollouts, use = sample(policy.model, policy.grammar, params, batch, keys, sampling, budgets)
        return (rollouts.lengths, rollouts.log_probs.sum(axis=1)), jnp.stack(use)[None]

    return run


def time_engine(work: Workload, sampling: Sampling, repeats: int) -> dict[str, float]:
    """Rates of one engine on one device."""
    run: Any = jax.jit(engine(work, sampling))
    inputs = jax.device_put((work.params, work.batch, work.budgets))
    timed = fastest(lambda: jax.block_until_ready(run(*inputs)), repeats)
    figures = _rates(timed)
    # Another queue, other lengths: the same program.
    jax.block_until_ready(run(*inputs[:2], inputs[2][::-1]))
    return {**figures, "compiled_programs": run._cache_size()}


def time_engines(work: Workload, sampling: Sampling, repeats: int) -> dict[str, float]:
    """The same with an engine on every device, each with its share of the images, which they must divide."""
    mesh, rows = make_mesh(), P(ENGINES)
    run = jax.jit(
        jax.shard_map(
            engine(work, sampling), mesh=mesh, in_specs=(P(), rows, rows), out_specs=(rows, rows), check_vma=False
        )
    )  # fmt: skip
    with jax.set_mesh(mesh):
        inputs = (put_replicated(mesh, work.params), *put_batch(mesh, (work.batch, work.budgets)))
        timed = fastest(lambda: jax.block_until_ready(run(*inputs)), repeats)
    return {"devices": mesh.size, **_rates(timed)}


def _rates(timed: Timed) -> dict[str, float]:
    (lengths, _), use = jax.tree.map(np.asarray, timed.result)
    return {
        "rollouts_per_second": round(len(lengths) / timed.wall, 2),
        "tokens_per_second": round(float(lengths.sum()) / timed.wall, 1),
        "seconds": round(timed.wall, 3),
        "useful_slot_steps": round(float(use[:, 0].sum() / use[:, 1].sum()), 4),
    }
