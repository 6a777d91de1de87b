"""What accelerators can do, as their makers say, and topologies made of them."""

from __future__ import annotations

import dataclasses
import math
import re

from moonseg_jax.errors import UserError

GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator."""

    name: str
    memory: int
    """Bytes."""
    flops: float
    """Peak operations per second on bfloat16."""
    bandwidth: float
    """Bytes per second between memory and cores."""
    exchange: float
    """Bytes per second that it sends to its neighbours, over all links together."""
    topology: str | None = None
    """Prefix of its topologies' names for the TPU compiler; None where there is none to compile with."""


CHIPS = {
    "v4": Chip(name="TPU v4", memory=32 * GIB, flops=275e12, bandwidth=1228e9, exchange=300e9, topology="v4"),
    "v5e": Chip(name="TPU v5e", memory=16 * GIB, flops=197e12, bandwidth=819e9, exchange=200e9, topology="v5e"),
    "v5p": Chip(name="TPU v5p", memory=95 * GIB, flops=459e12, bandwidth=2765e9, exchange=600e9, topology="v5p"),
    "v6e": Chip(name="TPU v6e", memory=32 * GIB, flops=918e12, bandwidth=1640e9, exchange=448e9, topology="v6e"),
    "h100": Chip(name="H100 80 GB", memory=80 * 10**9, flops=989e12, bandwidth=3350e9, exchange=450e9),
    "h200": Chip(name="H200 141 GB", memory=141 * 10**9, flops=989e12, bandwidth=4800e9, exchange=450e9),
    "cpu": Chip(name="CPU core, fake device", memory=4 * GIB, flops=5e10, bandwidth=1e10, exchange=1e10),
}
"""By the first part of a topology's name. TPU: cloud.google.com/tpu/docs (v4, v5e, v5p, v6e: peak bfloat16, HBM,
inter-chip bits per second over 8). GPU: NVIDIA's data sheets, dense bfloat16, NVLink in one direction. The CPU's are
round numbers, there to try commands with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """So many chips of one kind."""

    text: str
    chip: Chip
    devices: int

    @property
    def is_this_machine(self) -> bool:
        """Whether fake devices of this machine's CPU are meant."""
        return self.text.startswith("cpu:")


def parse_topology(text: str) -> Topology:
    """Reads `v5e:16x16`, `v5p:4x4x8`, `h100:8` or `cpu:8`.

    Raises:
      UserError: no such chip, or no such shape; says what there is.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text.strip().lower())
    if found is None:
        raise UserError(f"--topology {text}: write CHIP:SIDExSIDE, such as v5e:16x16, v5p:4x4x8, h100:8 or cpu:8")
    kind, sides = found.group(1), [int(side) for side in found.group(2).split("x")]
    if kind not in CHIPS:
        raise UserError(f"--topology {text}: no figures of {kind!r}; there are {', '.join(CHIPS)}")
    wanted = {"v4": 3, "v5p": 3, "v5e": 2, "v6e": 2}.get(kind, 1)
    if len(sides) != wanted or math.prod(sides) < 1:
        raise UserError(f"--topology {text}: {CHIPS[kind].name} takes {wanted} side{'s' * (wanted > 1)} of at least 1")
    return Topology(text=f"{kind}:{found.group(2)}", chip=CHIPS[kind], devices=math.prod(sides))
