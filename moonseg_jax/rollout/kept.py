"""The last batches of rollouts of a run, for its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moonseg_jax.rollout.stored import ROLLOUTS_FILE, Sampled, StoredRollouts, joined, load_rollouts


class KeptRollouts:
    """The last batches of rollouts of a run, as a context manager around its steps that writes them at the end."""

    def __init__(self, folder: Path, keep: int, resume: bool = False, process: int = 0, processes: int = 1):
        """Nothing yet, or where a run goes on what it left.

        Args:
          folder: of the run.
          keep: batches; 0 for none.
          resume: whether the run goes on.
          process: number of this process, from 0.
          processes: how many there are.

        Raises:
          UserError: what the run left is damaged.
        """
        name = Path(ROLLOUTS_FILE)
        self._file = folder / (name if processes == 1 else f"{name.stem}-{process}-of-{processes}{name.suffix}")
        self._keep, self._batches = keep, dict[int, StoredRollouts]()
        if keep and resume and self._file.is_file():
            before = load_rollouts(self._file)
            self._batches = {int(step): before.only(before.steps == step) for step in np.unique(before.steps)}

    def add(self, step: int, batch: Sampled) -> None:
        """Takes a batch (on the host) and lets go of the oldest.

        Batches of this step and later ones, from before the run went back to its checkpoint, are forgotten.
        """
        earlier = {number: one for number, one in self._batches.items() if number < step}
        kept = earlier | {step: StoredRollouts.of_batch(step, batch)}
        self._batches = dict(sorted(kept.items())[-self._keep :]) if self._keep else {}

    def __enter__(self) -> KeptRollouts:
        return self

    def __exit__(self, *error: object) -> None:
        """Writes what there is, also where the run was stopped."""
        if self._batches:
            joined(list(self._batches.values())).save(self._file)
