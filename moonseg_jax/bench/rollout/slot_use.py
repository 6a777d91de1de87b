"""Useful slot-steps of the engine and of fixed batches, at the lengths that paths have."""

from __future__ import annotations

import jax
import numpy as np

from moonseg_jax.bench.rollout.ours import engine
from moonseg_jax.bench.rollout.workload import make_workload
from moonseg_jax.rollout.settings import Sampling

QUEUE = 16
"""Samples per slot."""
GROUP = 8


def slot_use(slots: int) -> dict[str, float]:
    """Share of slot-steps that hold a sample, a queue of 16 samples per slot decoded to its end.

    Measured with the smallest preset: scheduling knows lengths only. Fixed batches take the samples in the same
    order and run each batch until its longest has ended.
    """
    work = make_workload("tiny", QUEUE * slots // GROUP, GROUP)
    run = jax.jit(engine(work, Sampling(group=GROUP, slots=slots)))
    (useful, steps), *_ = np.asarray(run(work.params, work.batch, work.budgets)[1])
    batches = np.sort(work.budgets.reshape(-1, slots), axis=1)
    return {
        "slots": slots, "samples": len(work.budgets), "tokens_p50": float(np.percentile(work.budgets, 50)),
        "tokens_p90": float(np.percentile(work.budgets, 90)), "tokens_p99": float(np.percentile(work.budgets, 99)),
        "useful_with_refill": round(float(useful / steps), 4),
        "useful_in_fixed_batches": round(float(work.budgets.sum() / (batches[:, -1].sum() * slots)), 4),
    }  # fmt: skip
