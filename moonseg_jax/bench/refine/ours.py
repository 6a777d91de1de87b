"""Our refiner, timed: whole, and its encoder alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from moonseg_jax.axes import ENGINES
from moonseg_jax.bench.refine.workload import Workload
from moonseg_jax.bench.timing import fastest
from moonseg_jax.model.refiner import make_head
from moonseg_jax.refine import improve_crops
from moonseg_jax.refine_memory import bytes_per_crop
from moonseg_jax.sharding import make_mesh, put_batch, put_replicated


@dataclasses.dataclass(frozen=True, kw_only=True)
class OurRun:
    """Figures of one batch, and what it gave."""

    figures: dict[str, Any]
    masks: Float[np.ndarray, "N S S"]
    """Probabilities."""


def time_ours(work: Workload, batch: int, repeats: int) -> OurRun:
    """Crops per second from pixels to probabilities on the host, memory, and the encoder's share of the time.

    With one engine, which has all threads, and, where the devices divide the batch, with one on every device, each
    with its part of the crops, as `Refiner` runs on a mesh. Memory and shares are those of one engine.

    Args:
      work: weights and at least `batch` crops.
      batch: crops side by side.
      repeats: the fastest of so many calls counts.
    """
    policy, head = work.policy, make_head(work.policy.config)
    params = jax.device_put(({"vision": work.params["vision"]}, work.head_params))
    crops, coarse = work.crops[:batch], work.coarse[:batch]
    improve = jax.jit(functools.partial(improve_crops, policy.model, head, work.head.iterations))
    compiled = improve.lower(*params, crops, coarse).compile()
    whole = fastest(lambda: jax.device_get(compiled(*params, crops, coarse)), repeats)
    by_engines = {1: batch / whole.wall}
    devices = jax.local_devices()
    if len(devices) > 1 and batch % len(devices) == 0:
        run = _on_every_device(improve, params, crops, coarse)
        by_engines[len(devices)] = batch / fastest(run, repeats).wall

    @jax.jit
    def encode(model_params: Any, crops: Any) -> Any:
        return policy.model.apply({"params": model_params}, crops, method="encode_crops")

    encoder = fastest(lambda: jax.block_until_ready(encode(params[0], crops)), repeats)
    share = min(encoder.wall / whole.wall, 1.0)
    memory = compiled.memory_analysis()
    figures = {
        "crops_per_second": round(max(by_engines.values()), 2),
        "crops_per_second_by_engines": {str(count): round(rate, 2) for count, rate in by_engines.items()},
        "seconds": float(f"{whole.wall:.4g}"),
        "encoder_share": round(share, 3),
        "head_share": round(1.0 - share, 3),
        "temporary_bytes": memory.temp_size_in_bytes if memory is not None else None,
        "estimated_bytes": batch * bytes_per_crop(policy.config, head),
    }
    return OurRun(figures=figures, masks=whole.result[0])


def _on_every_device(improve: Callable[..., Any], params: Any, *inputs: np.ndarray) -> Callable[[], Any]:
    """What runs an engine on each device, from pixels on the host to probabilities there."""
    mesh, rows = make_mesh(jax.local_devices()), P(ENGINES)
    placed = put_replicated(mesh, params)
    run = jax.jit(jax.shard_map(improve, mesh=mesh, in_specs=(P(), P(), rows, rows), out_specs=rows, check_vma=False))
    return lambda: jax.device_get(run(*placed, *put_batch(mesh, inputs)))
