"""The commands of `moonseg`: their options, and which room does the work; heavy imports wait until then."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from moonseg_jax.commands_bench import Bench
from moonseg_jax.commands_convert import Export, Import
from moonseg_jax.commands_data import Data
from moonseg_jax.commands_demo import Demo
from moonseg_jax.commands_eval import Eval
from moonseg_jax.commands_evidence import Evidence
from moonseg_jax.commands_launch import Launch
from moonseg_jax.commands_path import PathCommand
from moonseg_jax.commands_plan import Plan
from moonseg_jax.commands_report import Report
from moonseg_jax.commands_rewards import Rewards
from moonseg_jax.commands_score import Score
from moonseg_jax.commands_segment import Segment
from moonseg_jax.commands_serve import Serve
from moonseg_jax.commands_sweep import Sweep
from moonseg_jax.errors import UserError

MAY_DIFFER_ON_RESUME = (
    "steps", "box_steps", "eval_every", "eval_scenes", "checkpoint_every", "log_every", "keep_rollouts",
    "max_skipped_steps", "loggers", "log_reference_kl", "split_rollout_time",
    "mesh.data", "mesh.fsdp", "mesh.expert", "mesh.tensor",
    "placement.kind", "placement.sampling", "placement.dtype", "placement.mesh.data", "placement.mesh.fsdp",
    "placement.mesh.expert", "placement.mesh.tensor",
)  # fmt: skip
"""Settings a resumed run may change: how long it is, how often it reports, how many failures it bears, and the devices
it runs on."""
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train one stage: supervised, then reinforcement learning, then the refiner.

    Every setting of the config is also an option here (--steps 100); --config FILE --help lists them.
    """

    stage: tyro.conf.Positional[Literal["sft", "rl", "refiner"]]
    """sft: paths from masks; rl: sampled paths, paid by mask IoU; refiner: sharper masks from rollouts."""
    config: Path
    """Python file with get_config(stage), for example experiments/shapes_tiny.py."""
    out: OptionalPath = None
    """Folder of the run; runs/CONFIG-STAGE by default."""
    resume: bool = False
    """Go on with the run in that folder, from its last checkpoint."""
    resume_or_begin: bool = False
    """For jobs that are started again: go on where there is a checkpoint, begin where there is none. A run that was
    stopped before its first one is moved aside."""
    allow_older: bool = False
    """With --resume: where the last checkpoint is damaged, set it aside and go on from the one before it."""
    grace: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 25.0
    """After SIGTERM the run saves and exits. A rollout that lasts longer is given up then, and done again by --resume;
    an update, or a step of several processes, is waited for."""
    stop_code: Annotated[int, tyro.conf.arg(metavar="CODE")] = 0
    """Exit code after SIGTERM, for schedulers that must tell a stopped run from a finished one. Ctrl-C gives 130."""
    profile: Annotated[int, tyro.conf.arg(metavar="STEPS")] = 0
    """Take a trace of so many steps into OUT/profile, for Perfetto, xprof or TensorBoard; the first two steps of a
    sitting, which compile, are left out. It changes nothing that is learned."""
    distributed: Annotated[str | None, tyro.conf.arg(metavar="auto|HOST:PORT/COUNT/INDEX")] = None
    """Train together with other processes, all given the same command, with OUT in a shared folder or a bucket: auto on
    TPU, Slurm, MPI or Kubernetes, else the address of process 0, how many there are, and which this is. By default what
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say; `moonseg launch` sets them."""

    def run(self, overrides: Sequence[str] = ()) -> None:
        """Trains; leaves metrics and checkpoints in the run's folder.

        Args:
          overrides: Settings as on a command line: `--steps 100`.

        Raises:
          UserError: The config, a setting or the folder cannot be used.
        """
        if not self.grace >= 0:
            raise UserError(f"--grace must not be negative, got {self.grace}")
        if self.profile < 0:
            raise UserError(f"--profile must not be negative, got {self.profile}: 0 takes no trace")
        from moonseg_jax import config_file
        from moonseg_jax.processes import described_by_environment, join_processes, succeed_together
        from moonseg_jax.storage import in_bucket
        from moonseg_jax.train_start import has_begun, open_run

        def load_config() -> config_file.StageConfig:
            prog = f"moonseg train {self.stage} --config {self.config}"
            return config_file.with_overrides(config_file.load_config(self.config, self.stage), overrides, prog=prog)

        described = self.distributed or described_by_environment()
        if described is not None and "--help" not in overrides:
            join_processes(described)
        config = succeed_together(load_config)
        out = self.out or Path("runs") / f"{self.config.stem}-{self.stage}"
        if self.profile and in_bucket(out):
            raise UserError(f"--profile writes to this machine only, and --out {out} is a bucket: name a folder here")
        text = config_file.config_text(config)
        resume = self.resume or (self.resume_or_begin and has_begun(out))
        run = open_run(out, self.stage, text, resume=resume, may_differ=MAY_DIFFER_ON_RESUME)

        from moonseg_jax import train
        from moonseg_jax.compilation import keep_compiled_programs
        from moonseg_jax.loop import Sitting
        from moonseg_jax.stopping import Terminated
        from moonseg_jax.train_config import RlConfig, SftConfig

        keep_compiled_programs()
        sitting = Sitting(grace=self.grace, allow_older=self.allow_older, profile=self.profile)
        try:
            if isinstance(config, SftConfig):
                train.run_sft(config, run, resume, sitting)
            elif isinstance(config, RlConfig):
                train.run_rl(config, run, resume, sitting)
            else:
                train.run_refiner(config, run, resume, sitting)
        except UserError:
            run.withdraw()
            raise
        except Terminated:
            sys.exit(self.stop_code)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quickstart:
    """See it work: train by reinforcement learning on embedded data, refine, evaluate, write a report."""

    out: Path = Path("runs/quickstart")
    """Folder of the run."""
    from_scratch: bool = False
    """Do the supervised stage too, instead of starting from the shipped checkpoint."""
    minutes: float = 10.0
    """About how long it may take; the stages scale with it."""
    seed: int = 0
    """A run is a function of config, seed and data."""

    def run(self) -> None:
        """Runs the quickstart.

        Raises:
          UserError: The folder holds another run or cannot be written, or a number is out of range.
        """
        if not self.minutes > 0:
            raise UserError(f"--minutes must be greater than 0, got {self.minutes}")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")
        from moonseg_jax.compilation import keep_compiled_programs
        from moonseg_jax.quickstart import quickstart

        keep_compiled_programs()

        quickstart(out=self.out, seed=self.seed, minutes=self.minutes, from_scratch=self.from_scratch)


Command = (
    Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[Segment, tyro.conf.subcommand("segment")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Launch, tyro.conf.subcommand("launch")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Evidence, tyro.conf.subcommand("evidence")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[PathCommand, tyro.conf.subcommand("path")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Rewards, tyro.conf.subcommand("rewards")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)
