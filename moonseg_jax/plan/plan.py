"""A plan: what a step needs of every device, whether it fits, and how fast it could be at best."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from moonseg_jax.plan.chips import GIB, Topology
from moonseg_jax.plan.flops import count_flops
from moonseg_jax.plan.hlo import read_program
from moonseg_jax.plan.programs import (
    Program,
    Stage,
    StageConfig,
    bytes_per_device,
    parameter_count,
    stage_programs,
)
from moonseg_jax.plan.stand_in import with_stand_in
from moonseg_jax.plan.traffic import Collective, collectives, memory_traffic
from moonseg_jax.platforms import compiling_for
from moonseg_jax.policy import Policy
from moonseg_jax.sharding import make_mesh

RESERVED = 256 * 2**20
"""Bytes of a device's memory that its runtime keeps (15.75 of a v5e's 16 GiB are given out)."""
_REFUSED = re.compile(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramPlan:
    """One compiled program, per device."""

    name: str
    times: int
    """Per step."""
    arguments: int
    """Bytes of what it is given; what is given back in its place counts here."""
    outputs: int
    """Bytes of what it gives back elsewhere."""
    temporaries: int
    resident: int
    """Bytes that lie beside it."""
    flops: int
    """Of one run, over all devices."""
    traffic: float | None
    """Bytes between memory and cores; None where it did not compile."""
    exchanges: tuple[Collective, ...]

    @property
    def peak(self) -> int:
        """Bytes in use at most."""
        return self.arguments + self.outputs + self.temporaries + self.resident


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All programs of one step."""

    stage: Stage
    preset: str
    topology: Topology
    mesh: dict[str, int]
    batch: int
    """Images per step."""
    parameters: int
    """Of the model: policy, or for `refine` head and vision encoder."""
    programs: tuple[ProgramPlan, ...]

    @property
    def usable(self) -> int:
        """Bytes of a device's memory that programs may use."""
        return self.topology.chip.memory - RESERVED

    @property
    def peak(self) -> int:
        """Most bytes in use on a device, over all programs."""
        return max(program.peak for program in self.programs)

    @property
    def fits(self) -> bool:
        """Whether every program fits the device."""
        return self.peak <= self.usable

    @property
    def flops(self) -> int:
        """Of one step, over all devices."""
        return sum(program.times * program.flops for program in self.programs)

    @property
    def seconds(self) -> dict[str, float]:
        """What arithmetic, memory and exchange would take at the chip's peak, each by itself, per step."""
        chip, devices = self.topology.chip, self.topology.devices
        wire = sum(p.times * each.wire_bytes for p in self.programs for each in p.exchanges)
        return {
            "arithmetic": self.flops / devices / chip.flops,
            "memory": sum(p.times * (p.traffic or 0.0) for p in self.programs) / chip.bandwidth,
            "exchange": wire / chip.exchange,
        }

    @property
    def bound(self) -> str:
        """Which of them takes longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])


def make_plan(
    stage: Stage,
    config: StageConfig,
    topology: Topology,
    mesh: Mesh,
    *,
    note: Callable[[str], object] = lambda text: None,
) -> Plan:
    """Compiles the programs of a step for a mesh, and adds up what they need.

    Args:
      stage: of the step.
      config: the run's; a tokenizer that is not at hand is stood in for.
      topology: what the mesh is of.
      mesh: of devices that exist, or of a topology's.
      note: told what is being compiled.

    Raises:
      UserError: settings that do not fit the mesh.
    """
    platform = "cpu" if topology.is_this_machine else "tpu"
    with tempfile.TemporaryDirectory() as folder, compiling_for(platform):
        config = dataclasses.replace(config, model=with_stand_in(config.model, Path(folder)))
        programs = []
        wanted = stage_programs(stage, config, mesh)
        counts = step_flops(stage, config, mesh)
        for program, flops in zip(wanted, counts, strict=True):
            note(f"{stage}: compiling {program.name} for {topology.text}")
            programs.append(_planned(program, mesh, flops))
        policy = Policy.from_config(config.model)
    shapes = policy.shapes()
    counted = shapes if stage != "refine" else (shapes["vision"], wanted[-1].arguments[0].params)
    return Plan(
        stage=stage, preset=config.model.name, topology=topology, mesh={name: int(n) for name, n in mesh.shape.items()},
        batch=config.images_per_batch, parameters=parameter_count(counted), programs=tuple(programs),
    )  # fmt: skip


def step_flops(stage: Stage, config: StageConfig, mesh: Mesh) -> list[int]:
    """FLOPs of each program of a step, for the whole batch.

    Counted on one device, where every row meets its own experts once; devices that hold other experts are given rows
    of others too, for which they compute nothing.
    """
    one = make_mesh(list(mesh.devices.flat[:1]))
    found = []
    for program in stage_programs(stage, config, one):
        with jax.set_mesh(one):
            found.append(count_flops(program.run.trace(*program.arguments).jaxpr, program.endless_turns))
    return found


def _planned(program: Program, mesh: Mesh, flops: int) -> ProgramPlan:
    with jax.set_mesh(mesh):
        traced = program.run.trace(*program.arguments)
        arguments = bytes_per_device(program.arguments)
        given: dict[str, Any] = {
            "name": program.name, "times": program.times, "resident": program.resident, "flops": flops,
        }  # fmt: skip
        try:
            compiled = traced.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            refused = _REFUSED.search(str(error))
            if refused is None:
                raise
            used = _bytes(refused.group(1), refused.group(2))
            rest = max(used - arguments, 0)
            return ProgramPlan(arguments=arguments, outputs=0, temporaries=rest, traffic=None, exchanges=(), **given)
    memory = compiled.memory_analysis()
    text = read_program(compiled.as_text())
    return ProgramPlan(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes, temporaries=memory.temp_size_in_bytes,
        traffic=memory_traffic(text, program.endless_turns),
        exchanges=tuple(collectives(text, program.endless_turns)), **given,
    )  # fmt: skip


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * {"K": 2**10, "M": 2**20, "G": GIB}[unit])
