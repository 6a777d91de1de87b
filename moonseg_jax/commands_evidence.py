"""The command `moonseg evidence`: what refinement does, by iteration, object size and coarse mask."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from moonseg_jax.errors import UserError

Source = Literal["policy", "corrupted", "outlines"]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Measure what a refiner does: every iteration, by object size and coarse IoU, calibration, what it breaks.

    Prints Markdown tables, one set for each source of coarse masks.
    """

    checkpoint: OptionalPath = None
    """Folder of policy weights, such as RUN/best; the shipped ones by default."""
    refiner: OptionalPath = None
    """Folder of refiner weights; by default the checkpoint's own, and the shipped ones with the shipped policy."""
    coarse_from: tuple[Source, ...] = ("policy", "corrupted", "outlines")
    """Coarse masks: the policy's greedy paths; ground truths corrupted as synthetic pairs are; traced ground truths
    with the errors of the policy's samples. The last two need no policy that knows the images."""
    data: OptionalPath = None
    """Data set built by `moonseg data build`; held-out embedded scenes by default."""
    split: str = "val"
    """Split of that data set."""
    known: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Data set that the policy knows, on whose training split errors of its samples are measured for `outlines`;
    embedded scenes by default."""
    scenes: int = 500
    """How many scenes."""
    phrases: int = 2
    """Phrases judged per scene, the first ones."""
    iterations: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Times that the refiner improves its own mask; the model's number by default."""
    guard: bool = False
    """Keep coarse masks that overlap the refined ones as well as the refiner expects the truth to."""
    refine_batch: int = 16
    """Crops that are refined side by side."""
    seed: int = 0
    """Seed of samples, corruptions and errors."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="PATH")] = None
    """JSON file for all figures; the tables are printed in any case."""

    def run(self) -> None:
        """Measures and prints.

        Raises:
          UserError: A checkpoint or the data cannot be used, an option is out of range, or there are too few scenes.
        """
        self._refuse_wrong()
        from moonseg_jax.compilation import keep_compiled_programs
        from moonseg_jax.judge import judge_refinement
        from moonseg_jax.refiner_evidence.tables import evidence_tables, markdown
        from moonseg_jax.run_directory import write_json

        keep_compiled_programs()
        found = judge_refinement(
            policy=self.checkpoint, refiner=self.refiner, coarse_from=self.coarse_from, data=self.data,
            split=self.split, known=self.known, scenes=self.scenes, phrases=self.phrases, iterations=self.iterations,
            refine_batch=self.refine_batch, seed=self.seed, guard=self.guard,
        )  # fmt: skip
        if self.out is not None:
            write_json(self.out, {source: evidence.as_data() for source, evidence in found.items()})
        for source, evidence in found.items():
            for table in evidence_tables(evidence, source):
                print(markdown(table))

    def _refuse_wrong(self) -> None:
        counts = {"scenes": self.scenes, "phrases": self.phrases, "refine-batch": self.refine_batch}
        counts |= {} if self.iterations is None else {"iterations": self.iterations}
        for name, count in counts.items():
            if count < 1:
                raise UserError(f"--{name} must be at least 1, got {count}")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")
        if not self.coarse_from or len(set(self.coarse_from)) < len(self.coarse_from):
            raise UserError("--coarse-from names sources of coarse masks, at least one and each once")
        if self.out is not None and not self.out.parent.is_dir():
            raise UserError(f"-o {self.out}: there is no folder {self.out.parent}; make it first")
