"""The first groups of one batch, to look at: what was sampled, what it was paid, and the photo and phrase it answers.

The file is one of rollouts, see `stored`, with more in it: whatever reads stored rollouts reads this one too. Rewards
are kept of the whole batch, because an advantage may be measured on all of it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from moonseg_jax.errors import UserError
from moonseg_jax.paths.vocabulary import LAST_RESERVED_ID, Vocabulary
from moonseg_jax.rollout.score import Drawn
from moonseg_jax.rollout.stored import DAMAGED, Sampled, StoredRollouts, load_rollouts, sampled
from moonseg_jax.storage import for_random_reads, save_arrays
from moonseg_jax.types import SAMPLED, PromptBatch, Rollouts, Scored, TargetBatch

GROUPS_FILE = "groups.npz"
"""Name in a run's folder."""
SHOWN_GROUPS = 6
"""Groups whose samples are kept; of the others, rewards alone."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Payment:
    """What a batch's completions were paid: Q prompts, G completions of each, those put beside its samples too."""

    iou: Float[np.ndarray, "Q G"]
    """Raw, at the reward raster."""
    reward: Float[np.ndarray, "Q G"]
    """Shaped."""
    lengths: Int[np.ndarray, "Q G"]
    """Tokens, EOS included; 0 where nothing was put beside a group."""
    source: Int[np.ndarray, "Q G"]
    """`SAMPLED` or `INJECTED`."""


PAYMENT = tuple(field.name for field in dataclasses.fields(Payment))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GroupRecord:
    """The first S groups of a batch, and what all of its Q groups were paid."""

    samples: StoredRollouts
    """Of the S groups: their prompts are the first of the payment."""
    photos: UInt8[np.ndarray, "S side side 3"]
    """The image of each, stretched to a crop's side, as the model sees it."""
    phrases: tuple[str, ...]
    payment: Payment

    def save(self, file: Path) -> Path:
        """Writes a compressed `.npz`, whole or not at all, and returns its path."""
        payment = {f"paid_{name}": getattr(self.payment, name) for name in PAYMENT}
        phrases = np.asarray(self.phrases, str)
        save_arrays(file, {**self.samples.arrays(), **payment, "photos": self.photos, "phrases": phrases})
        return file


def load_groups(file: Path) -> GroupRecord:
    """Reads what `GroupRecord.save` wrote.

    Raises:
      UserError: it is not such a file or was cut short.
    """
    samples = load_rollouts(file)
    try:
        with np.load(for_random_reads(file), allow_pickle=False) as arrays:
            payment = Payment(**{name: arrays[f"paid_{name}"] for name in PAYMENT})
            photos, phrases = arrays["photos"], tuple(str(phrase) for phrase in arrays["phrases"])
        shape = payment.iou.shape
        wrong = [name for name in PAYMENT if getattr(payment, name).shape != shape]
        if wrong or len(shape) != 2 or shape[0] < len(samples) or shape[1] < samples.group:
            raise ValueError(f"payment of {shape}: {wrong}")
        if len(phrases) != len(samples) or photos.shape != (len(samples), *photos.shape[1:3], 3):
            raise ValueError(f"{len(phrases)} phrases and photos of {photos.shape}")
    except DAMAGED as error:
        raise UserError(f"{file} is not a record of groups, or was cut short; remove it: {error}") from error
    return GroupRecord(samples=samples, photos=photos, phrases=phrases, payment=payment)


def payment_of(batch: PromptBatch, taught: tuple[Rollouts, Scored]) -> dict[str, np.ndarray]:
    """This process's rows of the batch: arrays of `Payment` by name, of real prompts."""
    rollouts, scored = taught
    real = _own_rows(batch.valid).reshape(-1)  # As many as have an id that is not negative.
    lengths = _own_rows(rollouts.lengths)
    source = np.full(lengths.shape, SAMPLED, np.int32) if rollouts.source is None else _own_rows(rollouts.source)
    columns = {
        "iou": _own_rows(scored.iou), "reward": _own_rows(scored.reward), "lengths": lengths, "source": source
    }  # fmt: skip
    return {name: values.reshape(real.size, -1)[real] for name, values in columns.items()}


def first_groups(
    step: int, batch: PromptBatch, targets: TargetBatch, rollouts: Rollouts, drawn: Drawn, vocabulary: Vocabulary,
    payment: Payment,
) -> GroupRecord:  # fmt: skip
    """The first groups of this process, whose prompts are the first of the payment.

    Copies their rows alone to the host, and compiles nothing.

    Args:
      step: of training, from 0.
      batch: prompts on the learner's devices.
      targets: traced targets of the same prompts.
      rollouts: the policy's own samples, without what was put beside them.
      drawn: what they draw.
      vocabulary: for the phrases.
      payment: of the whole batch.
    """
    images, prompts = batch.valid.shape
    samples = rollouts.lengths.shape[0] // images
    taken = min(SHOWN_GROUPS, len(_own_rows(batch.valid)))

    def first(tree: Any, per_image: int) -> Any:
        return jax.tree.map(lambda leaf: _own_rows(leaf, taken * per_image), tree)

    few = {
        name: first(values, 1 if name in ("example_ids", "truth", "reference_lengths") else samples)
        for name, values in sampled(batch, targets.lengths, rollouts, drawn)._asdict().items()
    }
    stored = StoredRollouts.of_batch(step, Sampled(**few))
    real = np.flatnonzero(few["example_ids"].reshape(-1) >= 0)[:SHOWN_GROUPS]
    ids = _own_rows(batch.prompt_ids, taken).reshape(taken * prompts, -1)
    lengths = _own_rows(batch.prompt_lengths, taken).reshape(-1)
    return GroupRecord(
        samples=stored.only(np.arange(len(stored)) < SHOWN_GROUPS),
        photos=_own_rows(batch.crops, taken)[real // prompts, 0],
        phrases=tuple(_phrase(ids[row, : lengths[row]], vocabulary) for row in real),
        payment=payment,
    )


def _phrase(ids: Int[np.ndarray, " P"], vocabulary: Vocabulary) -> str:
    """The words of a prompt, without what stands before and behind every phrase."""
    paths = vocabulary.paths
    words = ids[len(paths.prompt_prefix) : len(ids) - len(paths.prompt_suffix)]
    return vocabulary.tokenizer.decode([int(token) for token in words if token > LAST_RESERVED_ID])


def _own_rows(leaf: Any, most: int | None = None) -> np.ndarray:
    """This process's first rows of an array split along its leading dimension; copies no more shards than it needs."""
    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf)[:most]
    shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    parts: list[np.ndarray] = []
    for start in sorted(shards):
        parts.append(np.asarray(shards[start]))
        if most is not None and sum(map(len, parts)) >= most:
            break
    return np.concatenate(parts)[:most]
