"""The command `moonseg plan`: whether a step fits machines one does not have yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TEXT")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Compile the real step of a stage for a topology, and say what it needs: bytes, FLOPs, exchange, time at best.

    TPUs are compiled for with their own compiler, which needs no TPU (pip install 'moonseg-jax[tpu]'); cpu:8 takes fake
    devices of this machine. GPUs are judged by the counts of a TPU of as many chips. Settings of the config are options
    too (--remat blocks). Exit code 1: it does not fit.
    """

    preset: Literal["tiny", "small", "moondream3"] = "moondream3"
    """Sizes of the model, and with them the recipe: experiments/moondream3_*.py, else that of the shipped weights."""
    stage: Literal["sft", "rl-learn", "rl-rollout", "refine"] = "sft"
    """Which step: of reinforcement learning one of the halves."""
    topology: str = "v5e:16x16"
    """CHIP:SIDExSIDE: v5e:16x16, v5p:4x4x8, v6e:8x8, v4:2x2x4, h100:8, h200:8, cpu:8."""
    mesh: OptionalText = None
    """data=…,fsdp=…,tensor=…,expert=…; the recipe's own for that topology by default."""
    batch: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Images per step; the recipe's by default."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Another recipe."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the figures go as JSON."""
    levers: bool = True
    """Where it does not fit, compile on with one setting more at a time until it does."""

    def run(self, overrides: Sequence[str] = ()) -> bool:
        """Plans, prints, and says whether it fits.

        Args:
          overrides: settings of the config, as on a command line.

        Raises:
          UserError: there is no such topology, mesh, recipe or setting; or no compiler for it.
        """
        from moonseg_jax.plan.command import plan_and_show

        return plan_and_show(
            preset=self.preset, stage=self.stage, topology=self.topology, mesh=self.mesh, batch=self.batch,
            config=self.config, json_file=self.json, pull_levers=self.levers, overrides=overrides,
        )  # fmt: skip
