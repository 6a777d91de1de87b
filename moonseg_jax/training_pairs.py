"""Which pairs a refiner stage learns from: those of rollouts, synthetic ones, or half and half of as many."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from data_pipelines.source import SceneSource
from moonseg_jax.errors import UserError
from moonseg_jax.pair_source import JoinedPairs, Pairs, PairSource
from moonseg_jax.pairs import PairBuffer
from moonseg_jax.synthetic_pairs import SyntheticPairs, drawn_examples

PairsFrom = Literal["rollouts", "synthetic", "both"]


def training_pairs(
    scenes: SceneSource,
    *,
    file: Path | None,
    pairs_from: PairsFrom,
    count: int | None,
    side: int,
    jitter: float,
    seed: int,
) -> Pairs:
    """The pairs of one run.

    So that sources can be compared, they answer the same examples wherever there is a file of rollouts: a synthetic
    pair takes the place of a rollout and answers its example; only box and coarse mask differ. Without a file,
    examples are drawn from all scenes.

    Args:
      scenes: the training split.
      file: pairs that an RL run wrote; may be None where all are synthetic.
      pairs_from: where coarse masks come from; of `both`, half are of rollouts, and that half is the larger one.
      count: how many in all, drawn from the file's; None takes as many as it holds.
      side: S, of image crops and masks.
      jitter: of the boxes of synthetic pairs.
      seed: of all that is drawn.

    Raises:
      UserError: an empty file or one of another data set or side, fewer rollouts than asked for, neither file nor
        count, or no file where rollouts are wanted.
    """
    if file is None:
        if pairs_from != "synthetic" or count is None:
            raise UserError(
                f"there is no file of pairs, which pairs_from {pairs_from} without a file needs: set pairs to the "
                "pairs.npz of an RL run, or pairs_from to synthetic and pair_count to how many there shall be"
            )
        return SyntheticPairs(drawn_examples(scenes, seed), count, side, seed, jitter)
    buffer = PairBuffer.load(file, side)
    every = PairSource(buffer, scenes)
    total = len(every) if count is None else count
    if total > len(every):
        raise UserError(f"pair_count is {total}, and {file} holds {len(every)} pairs: lower it, or train RL longer")
    synthetic = {"rollouts": 0, "synthetic": total, "both": total // 2}[pairs_from]
    if not synthetic and count is None:
        return every
    rows = np.random.default_rng(seed).permutation(len(every))[:total]
    rolled, replaced = every.part(np.sort(rows[synthetic:])), every.part(np.sort(rows[:synthetic]))
    both: list[Pairs] = [rolled, SyntheticPairs(replaced.example, len(replaced), side, seed, jitter)]
    parts = [part for part in both if len(part)]
    return parts[0] if len(parts) == 1 else JoinedPairs(parts)


def require_batch(pairs: Pairs, batch: int, processes: int) -> None:
    """Refuses batches that the pairs cannot fill.

    Args:
      pairs: of the run.
      batch: pairs per step, over all processes.
      processes: how many share the pairs.

    Raises:
      UserError: says how many there are.
    """
    if len(pairs) // processes < batch // processes:
        raise UserError(
            f"images_per_batch is {batch} and there are {len(pairs)} pairs for {processes} process(es): set it to at "
            f"most {len(pairs) // processes * processes}, or get more pairs by training RL longer or with a larger "
            "pair_buffer"
        )
