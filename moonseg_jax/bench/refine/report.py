"""All figures of the refiner's benchmark, in one run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from moonseg_jax.bench.refine.ours import time_ours
from moonseg_jax.bench.refine.peer import Peer
from moonseg_jax.bench.refine.workload import make_workload
from moonseg_jax.bench.rollout.peer import is_installed


def bench_refine(
    preset: str, *, batches: Sequence[int], repeats: int = 5, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measures the refiner and its peer.

    Args:
      preset: sizes of the model.
      batches: crops side by side.
      repeats: the fastest of so many calls counts.
      tell: takes a line of progress.

    Returns:
      Figures by name; where PyTorch is missing, `peer` says so.
    """
    work = make_workload(preset, max(batches))
    figures: dict[str, Any] = {
        "preset": preset, "device": jax.devices()[0].device_kind, "cpu_cores": os.cpu_count(),
        "crop_side": work.policy.config.vision.crop, "iterations": work.head.iterations, "batches": [],
    }  # fmt: skip
    peer = Peer(work) if is_installed() else None
    for batch in batches:
        tell(f"batches of {batch}")
        ours = time_ours(work, batch, repeats)
        row: dict[str, Any] = {"batch": batch, "ours": ours.figures, "peer": "PyTorch is not installed"}
        if peer is not None:
            theirs = peer.time(batch, repeats)
            ratio = ours.figures["crops_per_second"] / theirs.figures["crops_per_second"]
            row |= {
                "peer": theirs.figures, "crops_per_second_over_peer": round(ratio, 2),
                "largest_difference": float(f"{np.abs(ours.masks - theirs.masks).max():.3g}"),
            }  # fmt: skip
        figures["batches"].append(row)
    figures["load_average_1min"] = round(os.getloadavg()[0], 1)
    return figures
