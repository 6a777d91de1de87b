"""What one evaluation is asked to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from moonseg_jax.errors import UserError

Stage = Literal["coarse", "refined", "both"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Weights, data, and how much of it is judged."""

    checkpoint: Path | None = None
    """Policy weights; None takes the shipped policy and refiner."""
    refiner: Path | None = None
    """Refiner weights; None takes those in the checkpoint's folder."""
    dataset: Path | None = None
    """Folder of a data set; None draws embedded scenes that no training has seen."""
    split: str = "val"
    """Of that data set."""
    stage: Stage = "both"
    """Masks that figures are given of; `coarse` needs no refiner."""
    limit: int | None = None
    """Most images, the first ones; None takes all, and 500 embedded scenes."""
    phrases: int | None = None
    """Most phrases of an image, the first ones; None takes all, and 2 of an embedded scene."""
    iterations: int | None = None
    """Calls of the refinement head; None takes the model's."""
    guard: bool = False
    """Keep coarse masks that refinement promises nothing better than, see `refine.Refiner`."""
    thorough: bool = False
    """Also judge one sample at T = 1 per phrase, and a flood fill from the coarse outline; embedded scenes always
    are."""
    seed: int = 0
    """Of embedded scenes, of samples at T = 1, and of the resampling behind intervals."""
    batch: int = 16
    """Images that a device decodes side by side."""
    refine_batch: int = 16
    """Crops that a device refines side by side."""

    def __post_init__(self) -> None:
        """Refuses what leaves nothing to do.

        Raises:
          UserError: names the option.
        """
        counts = {
            "--limit": self.limit, "--phrases": self.phrases, "--iterations": self.iterations, "--batch": self.batch,
            "--refine-batch": self.refine_batch,
        }  # fmt: skip
        for name, count in counts.items():
            if count is not None and count < 1:
                remedy = "; --stage coarse leaves refinement out" if name == "--iterations" else ""
                raise UserError(f"{name} must be at least 1, got {count}{remedy}")
        if self.dataset is None and self.split != "val":
            raise UserError(f"--split {self.split} is of a data set, and none is named: name its folder with --dataset")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")
        if self.stage == "coarse" and self.refiner is not None:
            raise UserError(f"--refiner {self.refiner} and --stage coarse exclude each other; leave one of them out")
