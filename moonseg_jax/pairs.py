"""Rollouts → coarse-to-ground-truth pairs: what the refiner learns from."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from moonseg_jax.errors import UserError
from moonseg_jax.pair_keeping import content_hash, kept_of_versions
from moonseg_jax.partition import split_rows
from moonseg_jax.paths.boxes import corners_from_box
from moonseg_jax.paths.raster import coverage
from moonseg_jax.storage import for_random_reads, save_arrays
from moonseg_jax.types import CoarsePairs, EdgeBatch

MARGIN = 0.25
"""The crop is the predicted box grown by this share of its width and height on every side."""
MIN_IOU = 0.1
"""Coarse outlines that overlap the object less say nothing of it and are not kept."""
BANDS = 5
"""IoU bands of equal width that the buffer keeps in balance."""
FIELDS = ("example_ids", "crops", "coarse", "iou", "policy_version")


def crop_rectangle(box: Float[Array, "N 4"]) -> Float[Array, "N 4"]:
    """x0, y0, x1, y1 of the crop, in units of the image and clipped to it; takes NumPy or JAX arrays, answers in kind.

    Args:
      box: cx, cy, w, h in units of the image.
    """
    xp = jnp if isinstance(box, jax.Array) else np
    x0, y0, x1, y1 = corners_from_box(box)
    dx, dy = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
    return xp.clip(xp.stack([x0 - dx, y0 - dy, x1 + dx, y1 + dy], axis=-1), 0.0, 1.0)


def make_pairs(
    example_ids: Int[Array, " N"],
    box: Float[Array, "N 4"],
    edges: EdgeBatch,
    iou: Float[Array, " N"],
    policy_version: Int[Array, ""],
    side: int,
) -> CoarsePairs:
    """Draws every rollout's path in the frame of its crop, on device.

    Args:
      example_ids: which example each rollout answers; negative for padding.
      box: predicted boxes.
      edges: what the paths draw.
      iou: raw IoU; rollouts below `MIN_IOU` are marked by a negative example id and dropped by the buffer.
      policy_version: of the policy that sampled.
      side: S, side of a vision crop.
    """
    frame = crop_rectangle(box)
    drawn = coverage(edges, side, frame) > 0.5
    pairs = CoarsePairs(
        example_ids=jnp.where(iou >= MIN_IOU, example_ids, -1),
        crops=frame,
        coarse=jnp.packbits(drawn.reshape(drawn.shape[0], -1), axis=1),
        iou=iou,
        policy_version=jnp.full(iou.shape, policy_version, jnp.int32),
    )
    return jax.tree.map(split_rows, pairs)


class Provenance(NamedTuple):
    """Where one pair comes from."""

    source: Literal["rollout", "synthetic"]
    example_id: int
    crop: Float[np.ndarray, " 4"]
    """x0, y0, x1, y1 in units of the image."""
    iou: float
    """Of the coarse mask with the ground truth: of a rollout at the reward raster, of a synthetic pair in its crop."""
    policy_version: int
    """Of the policy that sampled; -1 for a synthetic pair."""


class PairBuffer:
    """Bounded store of pairs on the host, balanced over IoU bands, and in full bands over policy versions."""

    def __init__(self, capacity: int, side: int):
        """An empty buffer for coarse masks of `side` x `side`.

        Args:
          capacity: most pairs kept; every band may hold its fifth.
          side: S.
        """
        self.side, self._per_band = side, max(capacity // BANDS, 1)
        bits = -(-side * side // 8)
        self._hashes = np.zeros((0,), np.uint64)
        self._rows: dict[str, np.ndarray] = {
            "example_ids": np.zeros((0,), np.int32),
            "crops": np.zeros((0, 4), np.float32),
            "coarse": np.zeros((0, bits), np.uint8),
            "iou": np.zeros((0,), np.float32),
            "policy_version": np.zeros((0,), np.int32),
        }

    def __len__(self) -> int:
        """Pairs held."""
        return len(self._rows["iou"])

    def add(self, pairs: CoarsePairs) -> None:
        """Takes the pairs that are no padding; a full band keeps equally many of every version (`pair_keeping`)."""
        fresh = {name: np.asarray(getattr(pairs, name)) for name in FIELDS}
        fresh = {name: values[fresh["example_ids"] >= 0] for name, values in fresh.items()}
        rows = {name: np.concatenate([self._rows[name], fresh[name]]) for name in FIELDS}
        hashes = np.concatenate([self._hashes, content_hash(fresh)])
        band = np.minimum((rows["iou"] * BANDS).astype(int), BANDS - 1)
        kept = np.zeros(len(band), bool)
        for number in range(BANDS):
            inside = np.flatnonzero(band == number)
            kept[inside] = kept_of_versions(rows["policy_version"][inside], hashes[inside], self._per_band)
        self._rows = {name: values[kept] for name, values in rows.items()}
        self._hashes = hashes[kept]

    def state(self) -> dict[str, np.ndarray]:
        """Everything as named arrays, for a checkpoint."""
        return dict(self._rows)

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes back what `state` gave."""
        self._rows = {name: np.asarray(state[name]) for name in FIELDS}
        self._hashes = content_hash(self._rows)

    def save(self, file: Path, process: int = 0, processes: int = 1) -> Path:
        """Writes the pairs as `.npz`, every process its own: `pairs.npz`, or of several `pairs-0-of-2.npz` beside it.

        Args:
          file: the file that `load` is given.
          process: number of this process, from 0.
          processes: how many there are.

        Returns:
          What was written.
        """
        if processes > 1:
            file = file.with_name(f"{file.stem}-{process}-of-{processes}{file.suffix}")
        save_arrays(file, {"side": np.int32(self.side), **self._rows})
        return file

    @classmethod
    def load(cls, file: Path, side: int) -> PairBuffer:
        """Reads what `save` wrote, of all processes where there were several.

        Raises:
          UserError: no such file, that of a process is missing, one is broken, or pairs drawn for crops of another
            side.
        """
        parts = [_read_pairs(part, side) for part in ([file] if file.is_file() else _files_of_processes(file))]
        buffer = cls(sum(len(rows["iou"]) for rows in parts), side)
        buffer.load_state({name: np.concatenate([rows[name] for rows in parts]) for name in FIELDS})
        return buffer

    def pair(self, index: int) -> tuple[int, Float[np.ndarray, " 4"], Bool[np.ndarray, "S S"]]:
        """Example id, crop rectangle and coarse mask of one pair."""
        bits = np.unpackbits(self._rows["coarse"][index], count=self.side**2)
        return (
            int(self._rows["example_ids"][index]),
            self._rows["crops"][index],
            bits.reshape(self.side, self.side).astype(bool),
        )

    def provenance(self, index: int) -> Provenance:
        """Where one pair comes from."""
        rows = self._rows
        return Provenance(
            "rollout", int(rows["example_ids"][index]), rows["crops"][index], float(rows["iou"][index]),
            int(rows["policy_version"][index]),
        )  # fmt: skip

    def example_ids(self) -> Int[np.ndarray, " N"]:
        """The examples all pairs answer."""
        return self._rows["example_ids"]

    def crops(self) -> Float[np.ndarray, "N 4"]:
        """The crop rectangles of all pairs, in units of the image."""
        return self._rows["crops"]


def _files_of_processes(file: Path) -> list[Path]:
    """`pairs-0-of-2.npz` and `pairs-1-of-2.npz` beside `pairs.npz`, by process."""
    found = sorted(file.parent.glob(f"{file.stem}-*-of-*{file.suffix}"))
    if not found:
        raise UserError(f"{file}: no such file of pairs; `moonseg train rl` writes one beside its checkpoints")
    count = found[0].stem.rpartition("-")[2]
    wanted = [file.with_name(f"{file.stem}-{k}-of-{count}{file.suffix}") for k in range(int(count))]
    if set(wanted) != set(found):
        names = ", ".join(part.name for part in found)
        raise UserError(f"{file.parent}: pairs of {count} processes are needed, and found are {names}")
    return wanted


def _read_pairs(file: Path, side: int) -> dict[str, np.ndarray]:
    try:
        with np.load(for_random_reads(file), allow_pickle=False) as arrays:
            found, rows = int(arrays["side"]), {name: arrays[name] for name in FIELDS}
    except (ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file} is not a file of pairs, or was cut short; train RL again") from error
    if found != side:
        raise UserError(f"{file} holds pairs for crops of {found} px, the model's are {side} px")
    return rows


def crop_image(
    image: UInt8[np.ndarray, "H W 3"], rectangle: Float[np.ndarray, " 4"], side: int
) -> UInt8[np.ndarray, "S S 3"]:
    """Pixels of a rectangle (units of the image), stretched to S x S, bilinear."""
    return cv2.warpAffine(image, _to_crop(image, rectangle, side), (side, side), flags=_SAMPLING, borderMode=_BORDER)


def crop_mask(mask: Bool[np.ndarray, "H W"], rectangle: Float[np.ndarray, " 4"], side: int) -> Bool[np.ndarray, "S S"]:
    """A mask in the frame of a rectangle, at S x S."""
    soft = cv2.warpAffine(
        mask.astype(np.float32),
        _to_crop(mask, rectangle, side),
        (side, side),
        flags=_SAMPLING,
        borderMode=_BORDER,
    )
    return soft >= 0.5


_SAMPLING = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_BORDER = cv2.BORDER_REPLICATE


def _to_crop(image: np.ndarray, rectangle: np.ndarray, side: int) -> np.ndarray:
    """Affine map from crop pixels to image pixels; pixel centres lie at halves."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = rectangle * np.array([width, height, width, height])
    sx, sy = (x1 - x0) / side, (y1 - y0) / side
    return np.array([[sx, 0.0, x0 + sx / 2 - 0.5], [0.0, sy, y0 + sy / 2 - 0.5]])
