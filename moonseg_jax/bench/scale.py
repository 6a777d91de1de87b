"""How a gradient step scales with devices, in counts: fake devices share this machine's cores, and tell no time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moonseg_jax.config_file import load_config
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.plan.chips import parse_topology
from moonseg_jax.plan.devices import topology_devices
from moonseg_jax.plan.plan import make_plan
from moonseg_jax.plan.programs import CONFIG_STAGE, Stage
from moonseg_jax.plan.show import as_json
from moonseg_jax.sharding import make_mesh


def bench_scale(
    stage: Stage, counts: tuple[int, ...], images_per_device: int, axis: str, note: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Plans one step of `tiny` for more and more fake devices, every one with as many images (weak scaling).

    Args:
      stage: of the step.
      counts: of devices.
      images_per_device: of a batch.
      axis: of the mesh that all devices lie along; `data` holds parameters whole, `fsdp` splits them.
      note: told what is being compiled.

    Returns:
      Per count: FLOPs of a step and per device, bytes of arguments and temporaries per device, exchanges by kind.

    Raises:
      UserError: this process has fewer devices.
    """
    config = load_config(Path("experiments/shapes_tiny.py"), CONFIG_STAGE[stage])
    devices, rows = topology_devices(parse_topology(f"cpu:{max(counts)}")), []
    for count in counts:
        shape = MeshConfig(**({"data": count} if axis == "data" else {axis: count}))
        batch = dataclasses.replace(config, images_per_batch=images_per_device * count)
        mesh = make_mesh(devices[:count], shape)
        plan = make_plan(stage, batch, parse_topology(f"cpu:{count}"), mesh, note=note)
        figures = as_json(plan)
        rows.append(
            {
                "devices": count, "images": batch.images_per_batch, "flops": plan.flops,
                "flops_per_device": plan.flops // count, "arguments": figures["bytes_per_device"]["arguments"],
                "temporaries": figures["bytes_per_device"]["temporaries"], "collectives": figures["collectives"],
            }
        )  # fmt: skip
    return rows
