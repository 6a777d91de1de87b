"""Batches for the refiner's gradient step: pairs, and the frozen vision features of their image crops.

Features are either computed at every step or once per image crop and kept on the host; the steps see the same values
to rounding. What is kept was computed one crop per device at a time, so that its bits do not depend on neighbours,
on the order of the pairs, or on where a run was stopped and resumed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, UInt8

from moonseg_jax.errors import UserError
from moonseg_jax.learner.refiner import CropEncoder
from moonseg_jax.pair_source import PairPixels, Pairs, identity_rows, stack_pairs, with_identity
from moonseg_jax.sharding import make_mesh, put_batch, put_parameters, put_replicated

GIB = 1 << 30


class RefinerBatch(NamedTuple):
    """What a gradient step takes, on device."""

    features: tuple[Float[Array, "N gg W"], Float[Array, "N gg W"]]
    """Final and early features of the image crops."""
    coarse: Bool[Array, "N S S"]
    truth: Bool[Array, "N S S"]


class NumberedPairs(NamedTuple):
    """A batch of pairs by number."""

    rows: Int[np.ndarray, " N"]
    identity: Bool[np.ndarray, " N"]
    """Which get their ground truth for a coarse mask."""
    fresh: Mapping[int, PairPixels]
    """Those that were not kept when the batch was put together."""


class FeatureSource(Protocol):
    """From what a loader reads to batches with features."""

    items: Any
    """Random access for the loader."""

    def collate(self, items: Sequence[Any], seed: int) -> Any:
        """A batch on the host of some items; runs in the loader's threads."""

    def batch(self, collated: Any) -> RefinerBatch:
        """That batch on device, with its features."""


class RecomputedFeatures:
    """Encodes the crops of every batch, at every step."""

    def __init__(self, pairs: Pairs, encode: CropEncoder, params: Any, mesh: Mesh, identity_share: float):
        """Places the encoder's parameters.

        Args:
          pairs: to learn from.
          encode: the frozen encoder.
          params: the policy's parameters.
          mesh: where batches go.
          identity_share: share of the pairs whose coarse mask becomes the ground truth.
        """
        self.items, self._encode, self._mesh, self._share = pairs, encode, mesh, identity_share
        self._params = put_parameters(mesh, {"vision": params["vision"]})

    def collate(self, items: Sequence[PairPixels], seed: int) -> PairPixels:
        """Image crops, coarse masks and ground truths, stacked."""
        return stack_pairs(items, seed, self._share)

    def batch(self, collated: PairPixels) -> RefinerBatch:
        """The batch on device; its crops are encoded there."""
        placed: Any = put_batch(self._mesh, collated)
        crops, coarse, truth = placed
        return RefinerBatch(self._encode(self._params, crops), coarse, truth)


class CachedFeatures:
    """Encodes every image crop when it is first needed, and keeps its features and masks on the host."""

    def __init__(
        self, pairs: Pairs, encode: CropEncoder, params: Any, mesh: Mesh, identity_share: float, limit_gib: float
    ):
        """Makes room, which the system hands out as it is filled.

        Args:
          pairs: to learn from.
          encode: the frozen encoder.
          params: the policy's parameters.
          mesh: where batches go; every process encodes on its own devices.
          identity_share: share of the pairs whose coarse mask becomes the ground truth.
          limit_gib: most host memory of this process, in GiB.

        Raises:
          UserError: features and masks of all pairs need more; says how much.
        """
        self.items, self._encode, self._mesh, self._share = range(len(pairs)), encode, mesh, identity_share
        self._pairs, self._crop_of = pairs, pairs.crop_numbers()
        crop = jax.ShapeDtypeStruct((1, pairs.side, pairs.side, 3), np.uint8)
        shapes = jax.eval_shape(encode, params, crop)
        crops, mask_bytes = int(self._crop_of.max()) + 1, -(-(pairs.side**2) // 8)
        per_crop = sum(shape.size * shape.dtype.itemsize for shape in shapes)
        _require_room(crops, per_crop, len(pairs) * 2 * mask_bytes, limit_gib)

        self._features = tuple(np.empty((crops, *shape.shape[1:]), shape.dtype) for shape in shapes)
        self._masks = np.empty((len(pairs), 2, mask_bytes), np.uint8)
        self._is_encoded, self._is_read = np.zeros(crops, bool), np.zeros(len(pairs), bool)
        self._local = make_mesh(jax.local_devices())
        self._params = put_replicated(self._local, {"vision": params["vision"]})

    def collate(self, items: Sequence[int], seed: int) -> NumberedPairs:
        """Numbers of the pairs, their identity rows, and what of them was not read before."""
        # What another thread reads meanwhile is read twice and the same: nothing depends on who comes first.
        fresh = {row: self._pairs[row] for row in items if not self._is_read[row]}
        return NumberedPairs(np.array(items), identity_rows(len(items), self._share, seed), fresh)

    def batch(self, collated: NumberedPairs) -> RefinerBatch:
        """The batch on device, its features taken from what is kept; what is missing is computed first."""
        rows, identity, fresh = collated
        self._keep(fresh)
        side = self._pairs.side
        coarse, truth = np.unpackbits(self._masks[rows], axis=2, count=side**2).astype(bool).swapaxes(0, 1)
        coarse, truth = (mask.reshape(-1, side, side) for mask in (coarse, truth))
        final, early = (kept[self._crop_of[rows]] for kept in self._features)
        placed: Any = put_batch(self._mesh, ((final, early), with_identity(coarse, truth, identity), truth))
        return RefinerBatch(*placed)

    def _keep(self, fresh: Mapping[int, PairPixels]) -> None:
        """Keeps masks, and features of the crops that were not encoded before, one crop on each local device."""
        waiting: dict[int, UInt8[np.ndarray, "S S 3"]] = {}
        for row, (image, coarse, truth) in fresh.items():
            self._masks[row] = np.packbits(np.stack([coarse, truth]).reshape(2, -1), axis=1)
            if not self._is_encoded[self._crop_of[row]]:
                waiting[int(self._crop_of[row])] = image
        numbers, at_once = list(waiting), self._local.size
        for start in range(0, len(numbers), at_once):
            part = numbers[start : start + at_once]
            images: Any = np.stack([waiting[number] for number in part + part[-1:] * (at_once - len(part))])
            with jax.set_mesh(self._local):
                encoded = jax.device_get(self._encode(self._params, put_batch(self._local, images)))
            for kept, values in zip(self._features, encoded, strict=True):
                kept[part] = values[: len(part)]
            self._is_encoded[part] = True
        self._is_read[list(fresh)] = True


def feature_source(
    pairs: Pairs,
    encode: CropEncoder,
    params: Any,
    mesh: Mesh,
    *,
    identity_share: float,
    cache: bool,
    limit_gib: float,
) -> FeatureSource:
    """Features that are kept, or computed at every step, as `cache` says; see the two classes.

    Raises:
      UserError: they are to be kept and need more than `limit_gib`.
    """
    if cache:
        return CachedFeatures(pairs, encode, params, mesh, identity_share, limit_gib)
    return RecomputedFeatures(pairs, encode, params, mesh, identity_share)


def _require_room(crops: int, per_crop: int, mask_bytes: int, limit_gib: float) -> None:
    need = (crops * per_crop + mask_bytes) / GIB
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if need <= min(limit_gib, machine):
        return
    size = f"features of {crops} image crops, {per_crop / 2**20:.2f} MiB each, need {need:.2f} GiB with their masks"
    raise UserError(
        f"{size}; feature_cache_gib is {limit_gib:g} and this machine has {machine:.1f} GiB: raise it as far as the "
        "memory goes, lower pair_count, or set cache_features to False, which encodes the crops at every step"
    )
