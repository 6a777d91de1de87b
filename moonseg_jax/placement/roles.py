"""Which processes and devices learn, and which sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from moonseg_jax.errors import UserError
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.placement_config import PlacementConfig
from moonseg_jax.processes import Team
from moonseg_jax.sharding import make_mesh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roles:
    """Who does what, the same on every process but for `process`."""

    process: int
    """Number of this one."""
    learners: Team
    groups: tuple[Team, ...]
    """Processes that sample together, over one mesh; as many in each as there are learners. The learners themselves
    are the only group where no process only samples."""
    learner: Mesh
    """Of the devices that learn."""
    sampler: Mesh
    """Of the devices that sample, in the group of this process, or else in the first one; the learner's own where the
    same devices take turns."""

    @property
    def learns(self) -> bool:
        """Whether this process learns."""
        return self.process in self.learners

    @property
    def apart(self) -> bool:
        """Whether some processes only sample."""
        return self.groups != (self.learners,)

    @property
    def group(self) -> int:
        """Number of this process's group; 0 for learners."""
        return next((number for number, group in enumerate(self.groups) if self.process in group), 0)

    @property
    def share(self) -> tuple[int, int]:
        """Which share of the batches this process reads, and how many shares there are: one for every learner, or,
        for those who only sample, one for each of them.

        Learner i's scenes are those of the samplers at place i of every group, by turns.
        """
        if self.learns:
            return self.learners.index(self.process), len(self.learners)
        place = self.groups[self.group].index(self.process)
        return place + len(self.learners) * self.group, len(self.learners) * len(self.groups)


def assign_roles(placement: PlacementConfig, learner: MeshConfig) -> Roles:
    """Divides the devices of all processes.

    Raises:
      UserError: there are too few devices or processes, or a mesh does not fit them.
    """
    everyone = tuple(range(jax.process_count()))
    match placement.kind:
        case "colocated":
            mesh = make_mesh(shape=learner)
            return Roles(process=jax.process_index(), learners=everyone, groups=(everyone,), learner=mesh, sampler=mesh)
        case "interleaved":
            return _interleaved(placement, learner, everyone)
        case "disaggregated":
            return _disaggregated(placement, learner, everyone)


def _interleaved(placement: PlacementConfig, learner: MeshConfig, everyone: Team) -> Roles:
    learning, sampling = list[jax.Device](), list[jax.Device]()
    for process in everyone:
        own = devices_of((process,))
        learns = len(own) - placement.sampling
        if learns < 1:
            raise UserError(
                f"placement.sampling is {placement.sampling}, but process {process} has {len(own)} devices, of which "
                "one at least must learn: make it smaller, or set placement.kind to colocated"
            )
        learning += own[:learns]
        sampling += own[learns:]
    return Roles(
        process=jax.process_index(), learners=everyone, groups=(everyone,),
        learner=_mesh(learning, learner, "mesh"), sampler=_mesh(sampling, placement.mesh, "placement.mesh"),
    )  # fmt: skip


def _disaggregated(placement: PlacementConfig, learner: MeshConfig, everyone: Team) -> Roles:
    count = len(everyone) - placement.sampling
    if count < 1:
        raise UserError(
            f"placement.sampling is {placement.sampling}, but there are {len(everyone)} processes, of which one at "
            "least must learn: start more (moonseg launch --processes N on one machine), or make it smaller"
        )
    if placement.sampling % count:
        raise UserError(
            f"placement.sampling is {placement.sampling}, which is no multiple of the {count} processes that are left "
            f"to learn: of {len(everyone)} processes, "
            + ", ".join(str(n) for n in range(1, len(everyone)) if n % (len(everyone) - n) == 0)
            + " can sample"
        )
    learners = everyone[:count]
    groups = tuple(everyone[first : first + count] for first in range(count, len(everyone), count))
    devices = {len(devices_of(team)) for team in (learners, *groups)}
    if len(devices) > 1:
        raise UserError(
            f"groups of {count} processes have {' and '.join(map(str, sorted(devices)))} devices: with placement.kind "
            "disaggregated all must have equally many"
        )
    own = next((group for group in groups if jax.process_index() in group), groups[0])
    return Roles(
        process=jax.process_index(), learners=learners, groups=groups,
        learner=_mesh(devices_of(learners), learner, "mesh"),
        sampler=_mesh(devices_of(own), placement.mesh, "placement.mesh"),
    )  # fmt: skip


def devices_of(team: Team) -> list[jax.Device]:
    """The devices of these processes, one process's behind the other's."""
    return [device for process in team for device in jax.devices() if device.process_index == process]


def _mesh(devices: Sequence[jax.Device], shape: MeshConfig, setting: str) -> Mesh:
    try:
        return make_mesh(devices, shape)
    except UserError as error:
        raise UserError(f"{setting}, of {len(devices)} devices: {error}") from error
