"""Which pairs a full store keeps: equally many of every policy version, drawn by a hash of their content.

A refiner meets the outlines of whatever policy it is given, early or late, and the mistakes of policies differ; a
store of the newest pairs alone would hold the last few steps of a run. So the places are shared out over versions as
water fills a tank: every version has as many as any other, versions with fewer pairs keep all of them, and newer
versions come first where the places do not divide, or are fewer than the versions.

Within a version the pairs of lowest hash stay: a uniform sample (bottom-k sampling, Cohen & Kaplan 2007) that depends
on nothing but the pairs themselves. As a quota never grows while a run goes on, keeping step by step keeps what
keeping once at the end would, and stores of several hosts, put together and cut to size, are the store of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int, UInt64

HASHED = ("example_ids", "policy_version", "crops", "coarse")
"""What tells one pair from another."""


def content_hash(rows: Mapping[str, np.ndarray]) -> UInt64[np.ndarray, " N"]:
    """Draws of the pairs for their places: BLAKE2b of the bytes of each."""
    columns = [np.ascontiguousarray(rows[name]) for name in HASHED]
    contents = (b"".join(column[row].tobytes() for column in columns) for row in range(len(columns[0])))
    digests = (hashlib.blake2b(content, digest_size=8).digest() for content in contents)
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def quotas(counts: Int[np.ndarray, " V"], places: int) -> Int[np.ndarray, " V"]:
    """How many pairs of every version stay.

    Args:
      counts: pairs that each version offers, the oldest version first.
      places: how many there are for all of them.
    """
    low, high = 0, int(counts.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        fits = np.minimum(counts, middle).sum() <= places
        low, high = (middle, high) if fits else (low, middle - 1)
    kept = np.minimum(counts, low)
    left = places - int(kept.sum())
    newest = np.flatnonzero(counts > low)[::-1][:left]
    kept[newest] += 1
    return kept


def kept_of_versions(
    versions: Int[np.ndarray, " N"], hashes: UInt64[np.ndarray, " N"], places: int
) -> Bool[np.ndarray, " N"]:
    """Which pairs stay in so many places.

    Args:
      versions: policy version of each pair.
      hashes: `content_hash` of each; of a version the lowest stay, of equal ones the first.
      places: at least 0.
    """
    _, version, counts = np.unique(versions, return_inverse=True, return_counts=True)
    order = np.lexsort((hashes, version))
    rank = np.empty(len(version), int)
    rank[order] = np.arange(len(version)) - (np.cumsum(counts) - counts)[version[order]]
    return rank < quotas(counts, places)[version]
