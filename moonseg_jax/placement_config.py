"""Who samples and who learns: the placement of a run of reinforcement learning."""

from __future__ import annotations

import dataclasses
from typing import Literal

from moonseg_jax.config import ConfigError
from moonseg_jax.mesh_config import MeshConfig

Kind = Literal["colocated", "interleaved", "disaggregated"]
KINDS: tuple[Kind, ...] = ("colocated", "interleaved", "disaggregated")
ALL_SPLIT_EXAMPLES = MeshConfig()
"""Parameters whole on every device."""
LAG = 1
"""Updates between the weights that sample a batch and those that learn from it, where both happen at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacementConfig:
    """Which devices sample while others learn."""

    kind: Kind = "colocated"
    """`colocated`: all devices sample, then all learn. `interleaved`: every process has devices that sample and others
    that learn. `disaggregated`: the last processes sample, the first ones learn. In the last two, both happen at once:
    while a step learns, the next step's batch is sampled by the policy from before that step."""
    sampling: int = 1
    """Interleaved: devices of every process that sample. Disaggregated: processes that sample, a multiple of those
    that learn."""
    mesh: MeshConfig = ALL_SPLIT_EXAMPLES
    """Of the devices that sample: all together where interleaved; where disaggregated, of as many processes as
    learn, which sample apart from the others."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that sample, where they are copies."""

    def __post_init__(self) -> None:
        """Refuses what is no placement.

        Raises:
          ConfigError: names the setting.
        """
        if self.kind not in KINDS:
            raise ConfigError(f"placement.kind is {self.kind!r}: it must be one of {', '.join(KINDS)}")
        if self.sampling < 1:
            raise ConfigError(f"placement.sampling is {self.sampling}: somebody must sample, give at least 1")
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"placement.dtype is {self.dtype!r}: it must be float32 or bfloat16")

    @property
    def overlaps(self) -> bool:
        """Whether sampling and learning happen at once, on devices of their own."""
        return self.kind != "colocated"
