"""Which pairs a full store keeps."""

import numpy as np
import pytest

from moonseg_jax.pair_keeping import content_hash, kept_of_versions, quotas
from moonseg_jax.pairs import PairBuffer
from moonseg_jax.types import CoarsePairs

SIDE = 8


@pytest.mark.parametrize(
    ("counts", "places", "expected"),
    [
        ([5, 5, 5], 9, [3, 3, 3]),
        ([5, 5, 5], 11, [3, 4, 4]),  # what does not divide goes to the newest
        ([1, 9, 2, 9], 10, [1, 3, 2, 4]),  # versions with little keep all of it
        ([4, 4, 4, 4, 4], 2, [0, 0, 0, 1, 1]),  # more versions than places: the newest
        ([3, 2], 100, [3, 2]),
        ([3, 2], 0, [0, 0]),
        ([], 5, []),
    ],
)
def test_places_are_shared_out_over_versions(counts, places, expected):
    assert quotas(np.array(counts, int), places).tolist() == expected


def test_of_a_version_the_lowest_hashes_stay():
    versions = np.array([7, 3, 7, 3, 7, 3])
    hashes = np.array([50, 10, 40, 30, 60, 20], np.uint64)
    assert kept_of_versions(versions, hashes, 4).tolist() == [True, True, True, False, False, True]
    assert kept_of_versions(versions, hashes, 3).tolist() == [True, True, True, False, False, False]


def test_the_hash_reads_every_byte_of_a_pair_and_nothing_else():
    row = {
        "example_ids": np.array([1], np.int32), "policy_version": np.array([2], np.int32),
        "crops": np.zeros((1, 4), np.float32), "coarse": np.zeros((1, 8), np.uint8),
    }  # fmt: skip
    seen = {int(content_hash(row)[0])}
    for name in row:
        changed = {**row, name: row[name].copy()}
        changed[name].reshape(-1)[-1] += 1
        seen.add(int(content_hash(changed)[0]))
    assert len(seen) == 5
    assert (
        content_hash({name: np.repeat(values, 2, 0) for name, values in row.items()}).tolist()
        == [int(content_hash(row)[0])] * 2
    )


def rollouts(rng: np.random.Generator, version: int, count: int) -> CoarsePairs:
    return CoarsePairs(
        example_ids=rng.integers(0, 1000, count).astype(np.int32), crops=rng.random((count, 4), np.float32),
        coarse=rng.integers(0, 256, (count, SIDE * SIDE // 8), np.uint8), iou=rng.random(count, np.float32),
        policy_version=np.full(count, version, np.int32),
    )  # fmt: skip


def together(parts: list[CoarsePairs]) -> CoarsePairs:
    names = ("example_ids", "crops", "coarse", "iou", "policy_version")
    return CoarsePairs(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def contents(buffer: PairBuffer) -> set[bytes]:
    rows = buffer.state()
    return {rows["coarse"][i].tobytes() + rows["crops"][i].tobytes() for i in range(len(buffer))}


@pytest.mark.parametrize("capacity", [60, 20, 500])
def test_keeping_step_by_step_and_on_two_hosts_keeps_what_keeping_once_would(capacity):
    rng = np.random.default_rng(capacity)
    steps = [rollouts(rng, version, int(rng.integers(3, 40))) for version in range(9)]
    once, stepwise, merged = (PairBuffer(capacity, SIDE) for _ in range(3))
    hosts = [PairBuffer(capacity, SIDE) for _ in range(2)]
    once.add(together(steps))
    for number, step in enumerate(steps):
        stepwise.add(step)
        for host, buffer in enumerate(hosts):
            mine = np.arange(len(step.iou)) % 2 == host
            buffer.add(CoarsePairs(**{name: values[mine] for name, values in vars(step).items()}))
        assert len(stepwise) <= capacity, number
    merged.add(together([CoarsePairs(**buffer.state()) for buffer in hosts]))
    assert contents(once) == contents(stepwise) == contents(merged)
    assert 0 < len(once) <= capacity
