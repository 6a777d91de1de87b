"""A plan as a table for people and as JSON for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from moonseg_jax.plan.chips import GIB
from moonseg_jax.plan.devices import compiler_name, is_stood_in
from moonseg_jax.plan.plan import Plan


def as_json(plan: Plan, levers: list[str] | None = None) -> dict[str, Any]:
    """All figures of a plan.

    Args:
      plan: to write.
      levers: settings that would make it fit; None where that was not asked, empty where none does.
    """
    kinds: dict[str, dict[str, float]] = {}
    for program in plan.programs:
        for each in program.exchanges:
            kind = kinds.setdefault(each.kind, {"count": 0, "bytes": 0.0})
            kind["count"] += program.times * each.count
            kind["bytes"] += program.times * each.bytes
    compiled = all(program.traffic is not None for program in plan.programs)
    return {
        "stage": plan.stage, "preset": plan.preset, "topology": plan.topology.text, "devices": plan.topology.devices,
        "compiled_for": compiler_name(plan.topology), "compiler_is_stand_in": is_stood_in(plan.topology),
        "mesh": plan.mesh, "batch": plan.batch, "parameters": plan.parameters, "fits": plan.fits,
        "bytes_per_device": {
            "arguments": max(program.arguments for program in plan.programs),
            "temporaries": max(program.temporaries for program in plan.programs),
            "peak": plan.peak, "usable": plan.usable,
        },
        "flops": plan.flops,
        "collectives": kinds if compiled else None,
        "step_seconds_bound": plan.seconds[plan.bound] if compiled else None,
        "bound_by": plan.bound if compiled else None,
        "seconds": plan.seconds if compiled else {"arithmetic": plan.seconds["arithmetic"]},
        "levers": levers,
        "programs": [
            {
                "name": program.name, "times": program.times, "flops": program.flops, "peak": program.peak,
                "arguments": program.arguments, "outputs": program.outputs, "temporaries": program.temporaries,
                "resident": program.resident, "memory_traffic": program.traffic,
                "collectives": [
                    {"kind": each.kind, "devices": each.devices, "count": each.count, "bytes": each.bytes}
                    for each in program.exchanges
                ],
            }
            for program in plan.programs
        ],
    }  # fmt: skip


def print_plan(plan: Plan, console: Console) -> None:
    """The table of a plan's programs, and what follows from it."""
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items() if size > 1) or "one device"
    console.print(
        f"[bold]{plan.preset}, {plan.stage}[/bold], {plan.batch} images a step on {plan.topology.devices} x "
        f"{plan.topology.chip.name} ({mesh}); {plan.parameters:,} parameters"
    )
    if is_stood_in(plan.topology):
        console.print(
            f"[bold]GPUs are stood in for[/bold]: compiled by the TPU compiler for {compiler_name(plan.topology)}, "
            "as many chips; memory and seconds below are its counts under the GPU's figures"
        )
    table = Table("program", "a step", "arguments", "temporaries", "beside it", "peak", "TFLOP", "memory GB", "sent GB")
    for program in plan.programs:
        sent = sum(each.wire_bytes for each in program.exchanges)
        table.add_row(
            program.name, str(program.times), *(_gib(n) for n in (program.arguments, program.temporaries)),
            _gib(program.resident), _gib(program.peak), _tera(program.flops),
            "–" if program.traffic is None else f"{program.traffic / 1e9:.1f}", f"{sent / 1e9:.2f}",
        )  # fmt: skip
    console.print(table)
    verdict = "fits" if plan.fits else "[bold]does not fit[/bold]"
    console.print(f"{_gib(plan.peak)} of {_gib(plan.usable)} GiB per device: {verdict}")
    if all(program.traffic is not None for program in plan.programs):
        shown = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in plan.seconds.items())
        console.print(f"at the chip's peak, each by itself: {shown}; at best {plan.seconds[plan.bound]:.3g} s a step")
        for kind, figures in (as_json(plan)["collectives"] or {}).items():
            console.print(f"  {kind}: {figures['count']:.0f} a step, {figures['bytes'] / 1e9:.2f} GB per device")


def _gib(count: float) -> str:
    return f"{count / GIB:.2f}"


def _tera(count: int) -> str:
    return f"{count / 1e12:,.3g}" if count < 1e15 else f"{count / 1e12:,.0f}"
