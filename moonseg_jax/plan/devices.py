"""Devices of a topology: a pod's that nobody needs to have, or fake ones of this machine's CPU."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import jax

from moonseg_jax.errors import UserError
from moonseg_jax.plan.chips import Topology

STAND_IN = "v5p"
"""GPUs are planned for with the TPU compiler's counts: this machine has no compiler for them. Of its chips this one has
the memory nearest to theirs."""


COMPILER_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "none", "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}  # fmt: skip
"""For libtpu as a compiler only: it neither asks a cloud machine who it is, nor takes chips for itself."""


def topology_devices(topology: Topology) -> list[Any]:
    """As many devices as the topology has, in the order that a mesh takes them.

    Raises:
      UserError: the TPU compiler is not installed, or knows no such shape; or this process has too few CPU devices.
    """
    if topology.is_this_machine:
        return _cpu_devices(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology {topology.text} needs the TPU compiler, no TPU: pip install 'moonseg-jax[tpu]', or try cpu:8"
        )
    for name, value in COMPILER_ALONE.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=compiler_name(topology))
    except Exception as error:
        raise UserError(f"--topology {topology.text}: the TPU compiler knows no such shape ({error})") from error
    return list(found.devices)


def is_stood_in(topology: Topology) -> bool:
    """Whether another chip is compiled for than the topology has."""
    return topology.chip.topology is None and not topology.is_this_machine


def compiler_name(topology: Topology) -> str:
    """The topology whose compiler is asked: of GPUs a stand-in of as many chips."""
    if not is_stood_in(topology):
        return topology.text
    cubes = {1: "1x1x1", 2: "2x1x1", 4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4"}
    if topology.devices not in cubes:
        raise UserError(f"--topology {topology.text}: plans for GPUs take {', '.join(map(str, cubes))} devices")
    return f"{STAND_IN}:{cubes[topology.devices]}"


def _cpu_devices(topology: Topology) -> list[Any]:
    try:
        jax.config.update("jax_num_cpu_devices", topology.devices)
    except RuntimeError:
        pass  # JAX has started already: what there is has to do.
    devices = jax.devices("cpu")
    if len(devices) < topology.devices:
        raise UserError(
            f"--topology {topology.text}: this process has {len(devices)} CPU devices; set "
            f"JAX_NUM_CPU_DEVICES={topology.devices}"
        )
    return devices[: topology.devices]
