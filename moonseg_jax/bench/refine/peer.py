"""The PyTorch peer on the same weights and crops, with the number of threads that suits it best."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from moonseg_jax.bench.refine.workload import Workload
from moonseg_jax.bench.timing import fastest
from moonseg_jax.convert.names import Naming
from moonseg_jax.convert.pytorch import export_checkpoint
from moonseg_jax.weights import POLICY, REFINER, save_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeerRun:
    """Figures of one batch, and what it gave."""

    figures: dict[str, Any]
    masks: Float[np.ndarray, "N S S"]
    """Probabilities."""


class Peer:
    """An exported checkpoint read by PyTorch."""

    def __init__(self, work: Workload):
        """Exports the workload's weights and reads them."""
        from moonseg_jax.bench.torch_peer.refiner import TorchRefiner

        config = work.policy.config
        with tempfile.TemporaryDirectory() as folder:
            ours, exported = Path(folder) / "ours", Path(folder) / "exported"
            save_weights(ours, POLICY, work.params, config)
            save_weights(ours, REFINER, work.head_params, config)
            export_checkpoint(ours, exported, naming=Naming.HF, refiner=True)
            self._refiner = TorchRefiner.load(exported)
        self._work = work

    def time(self, batch: int, repeats: int) -> PeerRun:
        """Crops per second with 1, 2, 4, … threads up to all cores; the best counts.

        Args:
          batch: crops side by side.
          repeats: the fastest of so many calls counts, for every number of threads.
        """
        import torch

        crops, coarse = self._work.crops[:batch], self._work.coarse[:batch]
        usual, cores, timed = torch.get_num_threads(), os.cpu_count() or 1, {}
        try:
            for threads in sorted({*(2**power for power in range(cores.bit_length())), cores}):
                torch.set_num_threads(threads)
                timed[threads] = fastest(lambda: self._refiner.refine(crops, coarse), repeats)
        finally:
            torch.set_num_threads(usual)
        best = min(timed, key=lambda threads: timed[threads].wall)
        figures = {
            "crops_per_second": round(batch / timed[best].wall, 2),
            "seconds": float(f"{timed[best].wall:.4g}"),
            "threads": best,
            "crops_per_second_by_threads": {n: round(batch / one.wall, 2) for n, one in timed.items()},
        }
        return PeerRun(figures=figures, masks=timed[best].result[0])
