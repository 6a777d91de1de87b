"""The command `moonseg score`: anyone's masks against the ground truth of a data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from moonseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """Score a file of masks, whoever made them, by the same figures as `moonseg eval`.

    A line is a JSON object: which sample (`id`; or `ann_id` and `sentence`; or, for LVIS, `image_id` and
    `category_id`), and its mask (`rle`, `polygon`, or `png`, the name of a file). Samples without a line count as
    empty masks.
    """

    predictions: Path
    """JSON lines, such as the samples.jsonl of an evaluation."""
    annotations: Path
    """COCO or LVIS annotations, a folder that `moonseg data build` made, or one of expressions and instances.json."""
    dataset: Literal["refcoco", "refcoco+", "refcocog", "grefcoco"] | None = None
    """Which data set a folder of expressions is of."""
    split: str | None = None
    """Split of a folder."""
    split_by: Literal["unc", "google", "umd"] | None = None
    """Whose splits, of a folder of expressions; the usual ones by default."""
    instances: bool = False
    """LVIS: every annotation is a sample, by its id, instead of every pair of image and category."""
    seed: int = 0
    """Of the resampling behind the intervals."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Takes all figures."""
    samples: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Takes a line per sample with its counts."""

    def run(self) -> None:
        """Scores and prints.

        Raises:
          UserError: A line or an annotation is not what it should be, or an output cannot be written.
        """
        for name, file in (("json", self.json), ("samples", self.samples)):
            if file is not None and not file.parent.is_dir():
                raise UserError(f"--{name} {file}: there is no folder {file.parent}; make it first")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")
        from rich.console import Console

        from moonseg_jax.evaluation.run import TABLE_WIDTH
        from moonseg_jax.mask_scoring.run import score_predictions
        from moonseg_jax.mask_scoring.table import remarks, score_table
        from moonseg_jax.mask_scoring.truths import read_truths
        from moonseg_jax.run_directory import write_json

        truths = read_truths(
            self.annotations, dataset=self.dataset, split=self.split, split_by=self.split_by, instances=self.instances
        )
        result = score_predictions(self.predictions, truths, seed=self.seed, samples=self.samples)
        if self.json is not None:
            write_json(self.json, result)
        console = Console()
        console = console if console.is_terminal else Console(width=TABLE_WIDTH)
        console.print(result["scored"], highlight=False)
        console.print(score_table(result))
        for line in remarks(result):
            console.print(line, highlight=False)
