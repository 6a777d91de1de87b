"""The command `moonseg eval`: figures of a checkpoint on a split, sample by sample."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
Count = Annotated[int | None, tyro.conf.arg(metavar="N")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure a checkpoint on held-out phrases: IoU, precision, boundaries, by size, with 95 % intervals and baselines.

    Writes OUT/samples.jsonl (a line per phrase, as they come), OUT/metrics.json and OUT/table.md. Stopped and given
    again, the command goes on where it stood.
    """

    checkpoint: OptionalPath = None
    """Folder of policy weights, such as RUN/best; the shipped ones by default."""
    refiner: OptionalPath = None
    """Folder of refiner weights; by default the checkpoint's own, and the shipped ones with the shipped policy."""
    dataset: OptionalPath = None
    """Data set built by `moonseg data build`; held-out embedded scenes by default."""
    split: str = "val"
    """Split of that data set."""
    stage: Literal["coarse", "refined", "both"] = "both"
    """Masks that figures are given of: the path filled, the refined mask, or both. coarse needs no refiner weights."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N", aliases=["--scenes"])] = None
    """Most images, the first ones; all by default, 500 of embedded scenes."""
    phrases: Count = None
    """Most phrases of an image, the first ones; all by default, 2 of embedded scenes."""
    iterations: Count = None
    """Times that the refiner improves its own mask; the model's number by default."""
    guard: bool = False
    """Keep coarse masks that overlap the refined ones as well as the refiner expects the truth to."""
    thorough: bool = False
    """Also judge one sample at T = 1 per phrase, and a flood fill from the outline; embedded scenes always are."""
    batch: int = 16
    """Images that a device decodes side by side."""
    refine_batch: int = 16
    """Crops that a device refines side by side."""
    seed: int = 0
    """Seed of embedded scenes, of sampling, and of the resampling behind intervals."""
    distributed: Annotated[str | None, tyro.conf.arg(metavar="auto|HOST:PORT/COUNT/INDEX")] = None
    """Judge together with other processes, all given the same command, with OUT in a shared folder or a bucket: auto on
    TPU, Slurm, MPI or Kubernetes, else the address of process 0, how many there are, and which this is."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = Path("runs/eval")
    """Folder of the evaluation."""
    fresh: bool = False
    """Start over: remove the evaluation that is in the folder."""

    def run(self) -> None:
        """Evaluates, prints the table and says where the results are.

        Raises:
          UserError: A checkpoint or the data cannot be used, an option is out of range, or the folder holds another
            evaluation.
        """
        from moonseg_jax.evaluation.settings import EvalSettings

        settings = EvalSettings(
            checkpoint=self.checkpoint, refiner=self.refiner, dataset=self.dataset, split=self.split,
            stage=self.stage, limit=self.limit, phrases=self.phrases, iterations=self.iterations, guard=self.guard,
            thorough=self.thorough, seed=self.seed, batch=self.batch, refine_batch=self.refine_batch,
        )  # fmt: skip
        from rich.console import Console

        from moonseg_jax.compilation import keep_compiled_programs
        from moonseg_jax.evaluation.run import TABLE_WIDTH, evaluate, print_figures
        from moonseg_jax.processes import join_processes

        keep_compiled_programs()
        if self.distributed is not None:
            join_processes(self.distributed)
        metrics = evaluate(settings, self.out, fresh=self.fresh)
        if metrics is not None:
            console = Console()
            print_figures(metrics, console if console.is_terminal else Console(width=TABLE_WIDTH))
            print(f"figures  {self.out}/metrics.json\ntable    {self.out}/table.md\nsamples  {self.out}/samples.jsonl")
