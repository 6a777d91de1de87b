"""Rollouts on the host and on disk, with all that is needed to score them again: no model, no data set."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.errors import UserError
from moonseg_jax.rollout.score import Drawn
from moonseg_jax.storage import for_random_reads, save_arrays
from moonseg_jax.types import EdgeBatch, PromptBatch, Rollouts

ROLLOUTS_FILE = "rollouts.npz"
"""Name in a run's folder; of several processes each writes its own, `rollouts-0-of-2.npz`."""

DAMAGED = (
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)
"""What NumPy raises at a file that is none of its own, or was cut short."""


class Sampled(NamedTuple):
    """What is kept of one batch, on device or on the host."""

    example_ids: Int[Array, "I K"]
    truth: Bool[Array, "I K R R"]
    reference_lengths: Int[Array, "I K"]
    lengths: Int[Array, " N"]
    finish: Int[Array, " N"]
    box: Float[Array, "N 4"]
    edges: EdgeBatch


def sampled(batch: PromptBatch, target_lengths: Int[Array, "I K"], rollouts: Rollouts, drawn: Drawn) -> Sampled:
    """Chooses what is kept of a batch."""
    return Sampled(
        example_ids=batch.example_ids, truth=batch.ground_truth, reference_lengths=target_lengths,
        lengths=rollouts.lengths, finish=rollouts.finish, box=drawn.box, edges=drawn.edges,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StoredRollouts:
    """Q groups of G completions, as NumPy arrays."""

    steps: Int[np.ndarray, " Q"]
    """Training step at which each group was sampled."""
    example_ids: Int[np.ndarray, " Q"]
    reference_lengths: Int[np.ndarray, " Q"]
    """Tokens of the traced target."""
    truth: Bool[np.ndarray, "Q R R"]
    """Ground truth at the reward raster; on disk its bits are packed."""
    lengths: Int[np.ndarray, "Q G"]
    """Tokens, EOS included."""
    finish: Int[np.ndarray, "Q G"]
    """Finish reasons, see `types`."""
    box: Float[np.ndarray, "Q G 4"]
    """cx, cy, w, h in units of the image."""
    points: Float[np.ndarray, "Q G E 2 2"]
    """Edges of the paths, in units of the image; see `EdgeBatch`."""
    valid: Bool[np.ndarray, "Q G E"]
    subpath: Int[np.ndarray, "Q G E"]

    def __len__(self) -> int:
        """Groups."""
        return len(self.steps)

    @property
    def group(self) -> int:
        """G: samples per group."""
        return self.lengths.shape[1]

    @classmethod
    def of_batch(cls, step: int, batch: Sampled) -> StoredRollouts:
        """The groups of one batch; padding prompts and unused edges are left out."""
        real = batch.example_ids.reshape(-1) >= 0

        def per_prompt(values: Any) -> np.ndarray:
            return np.asarray(values).reshape(real.size, *values.shape[2:])[real]

        def per_sample(values: Any) -> np.ndarray:
            return np.asarray(values).reshape(real.size, -1, *values.shape[1:])[real]

        valid = per_sample(batch.edges.valid)
        used = np.flatnonzero(valid.any(axis=(0, 1)))
        edges = used[-1] + 1 if used.size else 0
        return cls(
            steps=np.full(np.count_nonzero(real), step, np.int32),
            example_ids=per_prompt(batch.example_ids),
            reference_lengths=per_prompt(batch.reference_lengths),
            truth=per_prompt(batch.truth),
            lengths=per_sample(batch.lengths),
            finish=per_sample(batch.finish),
            box=per_sample(batch.box),
            points=per_sample(batch.edges.points)[:, :, :edges],
            valid=valid[:, :, :edges],
            subpath=per_sample(batch.edges.subpath)[:, :, :edges],
        )

    def only(self, groups: Bool[np.ndarray, " Q"]) -> StoredRollouts:
        """Some of the groups."""
        return StoredRollouts(**{name: getattr(self, name)[groups] for name in FIELDS})

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file holds, by name."""
        arrays = {name: getattr(self, name) for name in FIELDS}
        arrays["truth"] = np.packbits(self.truth.reshape(len(self), -1), axis=1)
        return {**arrays, "raster": np.asarray(self.truth.shape[-1], np.int32)}

    def save(self, file: Path) -> Path:
        """Writes a compressed `.npz` and returns its path."""
        save_arrays(file, self.arrays())
        return file


FIELDS = tuple(field.name for field in dataclasses.fields(StoredRollouts))


def joined(parts: Sequence[StoredRollouts]) -> StoredRollouts:
    """All groups of several; paths with fewer edges are padded.

    Raises:
      UserError: the parts differ in samples per group or in the raster.
    """
    shapes = {(part.group, part.truth.shape[-1]) for part in parts}
    if len(shapes) > 1:
        listed = " and ".join(f"{group} samples per group on a raster of {side}" for group, side in sorted(shapes))
        raise UserError(f"stored rollouts of {listed} cannot be compared with each other")
    edges = max(part.points.shape[2] for part in parts)

    def padded(name: str, part: StoredRollouts) -> np.ndarray:
        values = getattr(part, name)
        if name not in ("points", "valid", "subpath"):
            return values
        return np.pad(values, [(0, 0), (0, 0), (0, edges - values.shape[2])] + [(0, 0)] * (values.ndim - 3))

    return StoredRollouts(**{name: np.concatenate([padded(name, part) for part in parts]) for name in FIELDS})


def load_rollouts(path: Path) -> StoredRollouts:
    """Reads stored rollouts.

    Args:
      path: a file that `StoredRollouts.save` wrote, or the folder of a run that kept its own.

    Raises:
      UserError: there is none, or it is not such a file or was cut short.
    """
    if path.is_dir():
        several = sorted(path.glob(f"{Path(ROLLOUTS_FILE).stem}-*-of-*.npz"))
        files = [path / ROLLOUTS_FILE] if (path / ROLLOUTS_FILE).is_file() else several
        if not files:
            raise UserError(f"{path} holds no {ROLLOUTS_FILE}: `moonseg train rl … --keep-rollouts 4` leaves one there")
    elif not path.is_file():
        raise UserError(f"no file or folder {path}: name the folder of an RL run, or its {ROLLOUTS_FILE}")
    else:
        files = [path]
    return joined([_read(file) for file in files])


def _read(file: Path) -> StoredRollouts:
    try:
        with np.load(for_random_reads(file), allow_pickle=False) as arrays:
            side, rows = int(arrays["raster"]), {name: arrays[name] for name in FIELDS}
        if rows["truth"].shape[1:] != (-(-side * side // 8),):
            raise ValueError(f"truth {rows['truth'].shape} is not that of a raster of {side}")
        rows["truth"] = np.unpackbits(rows["truth"], axis=1, count=side * side).reshape(-1, side, side).astype(bool)
        stored = StoredRollouts(**rows)
        samples, edges = (len(stored), stored.group), stored.points.shape[2]
        expected = {
            "steps": samples[:1], "example_ids": samples[:1], "reference_lengths": samples[:1],
            "truth": (len(stored), side, side), "lengths": samples, "finish": samples, "box": (*samples, 4),
            "points": (*samples, edges, 2, 2), "valid": (*samples, edges), "subpath": (*samples, edges),
        }  # fmt: skip
        wrong = [name for name, shape in expected.items() if rows[name].shape != shape]
        if wrong or 0 in samples or side < 1:
            raise ValueError(f"not Q groups of G samples: {wrong}")
    except DAMAGED as error:
        raise UserError(
            f"{file} is not a file of rollouts, or was cut short; `moonseg train rl … --keep-rollouts 4` writes one"
        ) from error
    return stored
