"""The PyTorch peer on the same weights, prompts and budgets, in fixed batches."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from moonseg_jax.bench.rollout.workload import Workload
from moonseg_jax.bench.timing import fastest
from moonseg_jax.convert.names import Naming
from moonseg_jax.convert.pytorch import export_checkpoint
from moonseg_jax.images import overlapping_crops
from moonseg_jax.weights import save_weights


def is_installed() -> bool:
    """Whether PyTorch is there."""
    return importlib.util.find_spec("torch") is not None


class Peer:
    """An exported checkpoint read by PyTorch, with the workload's prompts."""

    def __init__(self, work: Workload):
        """Exports the workload's weights and reads them."""
        from moonseg_jax.bench.torch_peer.policy import CroppedImage, Prompt, TorchPolicy

        config, vocabulary = work.policy.config, work.policy.vocabulary
        with tempfile.TemporaryDirectory() as folder:
            ours, exported = Path(folder) / "ours", Path(folder) / "exported"
            save_weights(ours, "policy", work.params, config)
            export_checkpoint(ours, exported, naming=Naming.HF)
            self._policy = TorchPolicy.load(exported, work.policy.grammar)
        images = [overlapping_crops(example.image, config.vision) for example in work.examples]
        self._images = [CroppedImage(crops=crops, tiling=tiling) for crops, tiling in images]
        said = [vocabulary.prompt(example.phrase, example.references) for example in work.examples]
        self._prompts = [
            Prompt(image=image, token_ids=ids.tolist(), values=values.tolist())
            for image, (ids, values) in enumerate(said)
        ]
        self._work = work

    def time(self, batch: int, repeats: int) -> dict[str, Any]:
        """Rates with so many rows side by side; the prefix is computed once per group and copied to its rows."""
        from moonseg_jax.bench.torch_peer.rollouts import decode_fixed_batches

        group, budgets = self._work.group, np.asarray(self._work.budgets)
        timed = fastest(
            lambda: decode_fixed_batches(
                self._policy, self._images, self._prompts, group=group, batch=batch, budgets=budgets, temperature=1.0,
                seed=0,
            ),
            repeats, warm_up=False,
        )  # fmt: skip
        rollouts = timed.result
        return {
            "batch": batch,
            "rollouts_per_second": round(len(budgets) / timed.wall, 2),
            "tokens_per_second": round(float(rollouts.lengths.sum()) / timed.wall, 1),
            "seconds": round(timed.wall, 3),
            "useful_slot_steps": round(float(rollouts.lengths.sum() / rollouts.slot_steps), 4),
        }
