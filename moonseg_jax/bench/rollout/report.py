"""All figures of the rollout benchmark, in one run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax

from moonseg_jax.bench.rollout.bandwidth import bandwidth_share
from moonseg_jax.bench.rollout.gap import log_prob_gap
from moonseg_jax.bench.rollout.ours import time_engine, time_engines
from moonseg_jax.bench.rollout.peer import Peer, is_installed
from moonseg_jax.bench.rollout.prefix import prefix_saving
from moonseg_jax.bench.rollout.scoring import scoring_share
from moonseg_jax.bench.rollout.slot_use import slot_use
from moonseg_jax.bench.rollout.workload import Workload, make_workload
from moonseg_jax.rollout.memory import kv_bytes_per_token
from moonseg_jax.rollout.settings import Sampling

GROUP = 8
FEW = 2
"""Images where the figure does not need many."""
SHORT_REPEATS = 5
"""Least number of calls where one takes a second or two: a single one would be noise."""


def bench_rollout(
    preset: str,
    *,
    images: int,
    slots: int,
    queues: tuple[int, ...] = (32, 256),
    repeats: int = 2,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measures the engine and its peer.

    Args:
      preset: sizes of the model; of `moondream3`, in bfloat16, only the share of the memory bound is measured, which
        takes an accelerator with room for twice its weights.
      images: one prompt each, with 8 samples: the queue.
      slots: of each engine, and rows of the peer's batches, which are tried four times as large too.
      queues: numbers of slots whose useful slot-steps are measured.
      repeats: the fastest of so many calls counts.
      tell: takes a line of progress.

    Returns:
      Figures by name; where PyTorch is missing, `peer` says so.
    """
    work = make_workload(preset, images, GROUP)
    config = work.policy.config
    figures: dict[str, Any] = {
        "preset": preset, "device": jax.devices()[0].device_kind, "devices": jax.local_device_count(),
        "cpu_cores": os.cpu_count(), "prompts": images, "group": GROUP, "slots": slots,
        "kv_bytes_per_token": kv_bytes_per_token(config),
        "kv_bytes_per_sample": kv_bytes_per_token(config) * config.paths.max_new_tokens,
    }  # fmt: skip
    if preset == "moondream3":
        tell(f"decoding in {slots} slots")
        return figures | {"bandwidth": bandwidth_share(work, slots, repeats)}
    tell(f"{images} prompts x {GROUP} samples in {slots} slots")
    figures["groups_of_8"] = _groups(work, slots, repeats, tell)
    tell("one prompt at a time")
    figures["batch_1"] = _one_by_one(work, max(repeats, SHORT_REPEATS))
    tell("log-probabilities of sampler and learner")
    few = make_workload(preset, FEW, GROUP, natural=True)
    figures["log_prob_gap"] = log_prob_gap(few, Sampling(group=GROUP, slots=2 * GROUP))
    tell("shared prefixes against one prefill per sample")
    figures["prefix"] = prefix_saving(_short(work), FEW, max(repeats, SHORT_REPEATS))
    tell("drawing and scoring")
    figures["scoring"] = scoring_share(few, Sampling(group=GROUP), repeats)
    tell("memory bandwidth")
    figures["bandwidth"] = bandwidth_share(work, slots, repeats)
    for count in queues:
        tell(f"useful slot-steps of {count} slots")
        figures.setdefault("slot_use", []).append(slot_use(count))
    figures["load_average_1min"] = round(os.getloadavg()[0], 1)
    return figures


def _groups(work: Workload, slots: int, repeats: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Rates at groups of 8; the best of the peer's batches against the best of ours."""
    devices = jax.local_device_count()
    ours = {"one_engine": time_engine(work, Sampling(group=GROUP, slots=slots), repeats)}
    if devices > 1 and len(work.examples) % devices == 0:
        tell(f"an engine on each of {devices} devices")
        ours["engine_per_device"] = time_engines(work, Sampling(group=GROUP, slots=slots), repeats)
    if not is_installed():
        return {"ours": ours, "peer": "PyTorch is not installed"}
    tell("the same in PyTorch")
    peer = Peer(work)
    batches = sorted({slots, min(4 * slots, len(work.budgets))})
    theirs = [peer.time(batch, repeats) for batch in batches]
    best = max(row["rollouts_per_second"] for row in theirs)
    times = {name: round(row["rollouts_per_second"] / best, 2) for name, row in ours.items()}
    return {"ours": ours, "peer": theirs, "rollouts_per_second_over_best_peer": times}


def _one_by_one(work: Workload, repeats: int) -> dict[str, Any]:
    """Tokens per second of single sequences."""
    single = dataclasses.replace(work.first(FEW), group=1, budgets=work.budgets[:FEW])
    ours = time_engine(single, Sampling(slots=1), repeats)
    if not is_installed():
        return {"ours": ours, "peer": "PyTorch is not installed"}
    theirs = Peer(single).time(1, repeats)
    ratio = round(ours["tokens_per_second"] / theirs["tokens_per_second"], 2)
    return {"ours": ours, "peer": theirs, "tokens_per_second_over_peer": ratio}


def _short(work: Workload) -> Workload:
    """Paths of few tokens, which leave prefill its share."""
    return dataclasses.replace(work, budgets=work.budgets.clip(max=32))
