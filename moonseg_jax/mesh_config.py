"""The shape of a mesh: how many devices each axis has."""

from __future__ import annotations

import dataclasses
import math

from moonseg_jax.axes import DATA, EXPERT, FSDP, TENSOR
from moonseg_jax.config import ConfigError
from moonseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices each axis of the mesh has."""

    data: int | None = None
    """Devices that examples are split over; None takes all that the other axes leave."""
    fsdp: int = 1
    """Devices that parameters, their gradients and optimizer state are split over, and examples too."""
    expert: int = 1
    """Devices that routed experts are split over."""
    tensor: int = 1
    """Devices that heads, hidden units and vocabulary are split over, and routed experts once more."""

    def __post_init__(self) -> None:
        """Refuses axes without devices.

        Raises:
          ConfigError: names the axis.
        """
        for name, size in dataclasses.asdict(self).items():
            if size is not None and size < 1:
                raise ConfigError(f"mesh.{name} is {size}: it must be at least 1")

    def sizes(self, devices: int) -> dict[str, int]:
        """Axis → size, in the mesh's order, on so many devices.

        Raises:
          UserError: the axes do not make up that number; says which would.
        """
        fixed = {FSDP: self.fsdp, EXPERT: self.expert, TENSOR: self.tensor}
        inner = math.prod(fixed.values())
        if devices % inner:
            shown = " x ".join(f"mesh.{name} = {size}" for name, size in fixed.items() if size > 1)
            raise UserError(
                f"{shown} does not divide the {devices} devices; products that do: "
                + ", ".join(str(n) for n in range(1, devices + 1) if devices % n == 0)
            )
        data = devices // inner if self.data is None else self.data
        if data * inner != devices:
            raise UserError(
                f"mesh.data = {data} and the other axes make {data * inner} devices, but there are {devices}: set "
                f"mesh.data to {devices // inner}, or leave it out"
            )
        return {DATA: data, **fixed}
