"""From the words of `moonseg plan` to a plan on the screen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from moonseg_jax.config import PRESETS
from moonseg_jax.config_file import config_value, load_config, with_overrides
from moonseg_jax.errors import UserError
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.plan.chips import Topology, parse_topology
from moonseg_jax.plan.devices import is_stood_in, topology_devices
from moonseg_jax.plan.levers import levers
from moonseg_jax.plan.plan import Plan, make_plan
from moonseg_jax.plan.programs import CONFIG_STAGE, Stage, StageConfig
from moonseg_jax.plan.show import as_json, print_plan
from moonseg_jax.sharding import make_mesh, row_shards

TABLE_WIDTH = 140
"""Columns of a table in a file or pipe."""
AXES = ("data", "fsdp", "expert", "tensor")


def plan_and_show(
    *,
    preset: str,
    stage: Stage,
    topology: str,
    mesh: str | None,
    batch: int | None,
    config: Path | None,
    json_file: Path | None,
    pull_levers: bool,
    overrides: Sequence[str],
) -> bool:
    """Makes a plan, prints it and writes it down; arguments as of the command.

    Returns:
      Whether the step fits.

    Raises:
      UserError: there is no such topology, mesh, recipe or setting; or no compiler for it.
    """
    place = parse_topology(topology)
    named = config or Path("experiments") / ("shapes_tiny.py" if preset != "moondream3" else _recipe(stage, place))
    settings = with_overrides(load_config(named, CONFIG_STAGE[stage]), overrides, prog="moonseg plan")
    if config is None and settings.model.name != preset:
        settings = dataclasses.replace(settings, model=PRESETS[preset]())
    shape = _mesh(mesh) if mesh is not None else _kept_mesh(named, place)
    if batch is not None:
        settings = dataclasses.replace(settings, images_per_batch=batch)
    devices = topology_devices(place)
    built = make_mesh(devices, shape)
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    console.print("tokenizer and data are not needed: shapes only")

    def attempt(tried: StageConfig) -> Plan:
        plan = make_plan(stage, tried, place, built, note=lambda text: console.print(f"{text} …"))
        print_plan(plan, console)
        return plan

    plan = attempt(settings)
    pulled = _levers_that_fit(settings, row_shards(built), attempt, console) if pull_levers and not plan.fits else None
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(plan, pulled), indent=1) + "\n", encoding="utf-8")
        console.print(f"written to {json_file}")
    return plan.fits


def _levers_that_fit(settings: StageConfig, shares: int, attempt, console: Console) -> list[str]:  # type: ignore[no-untyped-def]
    pulled: list[str] = []
    for named, changed in levers(settings, shares):
        pulled.append(named)
        console.print(f"with {' '.join(pulled)}:")
        if attempt(changed).fits:
            console.print(f"it fits with {' '.join(pulled)}")
            return pulled
    console.print("no setting makes it fit: take more devices, a smaller --batch, or fewer crops")
    return []


def _recipe(stage: Stage, topology: Topology) -> str:
    return "moondream3_8gpu.py" if is_stood_in(topology) else f"moondream3_{CONFIG_STAGE[stage]}.py"


def _kept_mesh(recipe: Path, topology: Topology) -> MeshConfig | None:
    """The mesh that a recipe keeps for a topology; None, which splits examples only, where it keeps none."""
    meshes = config_value(recipe, "MESHES", {})
    if topology.text in meshes:
        return meshes[topology.text]
    if meshes and not topology.is_this_machine:
        raise UserError(
            f"{recipe} keeps no mesh for {topology.text}, only for {', '.join(meshes)}: give --mesh, for example "
            f"--mesh fsdp={topology.devices}"
        )
    return None


def _mesh(text: str) -> MeshConfig:
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if name not in AXES or not size.isdecimal():
            raise UserError(f"--mesh {text}: {part!r} is not AXIS=SIZE with an axis of {', '.join(AXES)}")
        sizes[name] = int(size)
    return MeshConfig(**sizes)
