"""Rollouts on disk: what comes back is what was sampled, and what is no such file is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from moonseg_jax.errors import UserError
from moonseg_jax.rollout.kept import KeptRollouts
from moonseg_jax.rollout.stored import FIELDS, Sampled, StoredRollouts, joined, load_rollouts
from moonseg_jax.types import EdgeBatch

GROUP, SIDE, EDGES = 3, 9, 5


def batch(seed: int = 0, used: int = 4) -> Sampled:
    """Two images with two phrases, one of them padding; paths of up to `used` of 5 edges."""
    rng = np.random.default_rng(seed)
    samples = 4 * GROUP
    valid = np.arange(EDGES) < rng.integers(1, used + 1, (samples, 1))
    valid[0] = np.arange(EDGES) < used
    return Sampled(
        example_ids=np.array([[11, 12], [13, -1]]), truth=rng.uniform(size=(2, 2, SIDE, SIDE)) > 0.5,
        reference_lengths=rng.integers(5, 20, (2, 2)), lengths=rng.integers(5, 20, samples),
        finish=rng.integers(0, 3, samples), box=rng.uniform(size=(samples, 4)).astype(np.float32),
        edges=EdgeBatch(
            points=rng.uniform(size=(samples, EDGES, 2, 2)).astype(np.float32), valid=valid,
            subpath=np.cumsum(rng.integers(0, 2, (samples, EDGES)), axis=1),
        ),
    )  # fmt: skip


def same(first: StoredRollouts, second: StoredRollouts) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_a_batch_is_kept_without_padding_prompts_and_unused_edges():
    sampled = batch()
    stored = StoredRollouts.of_batch(6, sampled)
    assert (len(stored), stored.group, stored.steps.tolist()) == (3, GROUP, [6, 6, 6])
    assert stored.example_ids.tolist() == [11, 12, 13]
    np.testing.assert_array_equal(stored.truth, sampled.truth.reshape(4, SIDE, SIDE)[:3])
    np.testing.assert_array_equal(stored.lengths.reshape(-1), sampled.lengths[:9])
    np.testing.assert_array_equal(stored.points.reshape(9, 4, 2, 2), sampled.edges.points[:9, :4])
    np.testing.assert_array_equal(stored.box[1, 2], sampled.box[5])


def test_files_give_back_what_was_written(tmp_path):
    stored = StoredRollouts.of_batch(6, batch())
    same(load_rollouts(stored.save(tmp_path / "mine.npz")), stored)


def test_parts_with_fewer_edges_are_padded_with_edges_that_are_not_valid():
    few, many = (StoredRollouts.of_batch(step, batch(step, used)) for step, used in ((0, 2), (1, 4)))
    both = joined([few, many])
    assert both.points.shape[2] == 4 and not both.valid[:3, :, 2:].any()
    np.testing.assert_array_equal(both.points[:3, :, :2], few.points)
    same(both.only(both.steps == 1), many)


def test_rollouts_of_other_groups_or_rasters_are_not_mixed():
    one = StoredRollouts.of_batch(0, batch())
    with pytest.raises(
        UserError, match="3 samples per group on a raster of 8 and 3 samples per group on a raster of 9"
    ):
        joined([one, dataclasses.replace(one, truth=one.truth[:, :8, :8])])


def kept_steps(folder) -> list[int]:
    return np.unique(load_rollouts(folder).steps).tolist()


def test_the_last_batches_are_kept_and_written_even_where_the_run_is_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt), KeptRollouts(tmp_path, 2) as kept:
        for step in range(4):
            kept.add(step, batch(step))
        raise KeyboardInterrupt
    assert kept_steps(tmp_path) == [2, 3]
    stored = load_rollouts(tmp_path)
    same(stored.only(stored.steps == 3), StoredRollouts.of_batch(3, batch(3)))


def test_a_resumed_run_goes_on_from_what_it_left_and_forgets_what_it_samples_again(tmp_path):
    with KeptRollouts(tmp_path, 3) as kept:
        for step in range(5):
            kept.add(step, batch(step))
    with KeptRollouts(tmp_path, 3, resume=True) as kept:
        kept.add(4, batch(40))
    assert kept_steps(tmp_path) == [2, 3, 4]
    stored = load_rollouts(tmp_path)
    same(stored.only(stored.steps == 4), StoredRollouts.of_batch(4, batch(40)))
    with KeptRollouts(tmp_path, 3, resume=True) as kept:
        kept.add(3, batch(3))
    assert kept_steps(tmp_path) == [2, 3]


def test_nothing_is_written_where_nothing_is_to_be_kept(tmp_path):
    with KeptRollouts(tmp_path, 0) as kept:
        kept.add(0, batch())
    assert list(tmp_path.iterdir()) == []


def test_every_process_writes_its_own_file_and_all_are_read(tmp_path):
    for process in range(2):
        with KeptRollouts(tmp_path, 1, process=process, processes=2) as kept:
            kept.add(process, batch(process))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rollouts-0-of-2.npz", "rollouts-1-of-2.npz"]
    assert kept_steps(tmp_path) == [0, 1] and len(load_rollouts(tmp_path)) == 6


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file or folder .*gone: name the folder of an RL run"):
        load_rollouts(tmp_path / "gone")
    with pytest.raises(UserError, match=r"holds no rollouts\.npz: .*--keep-rollouts"):
        load_rollouts(tmp_path)


def test_what_is_no_file_of_rollouts_is_refused(tmp_path):
    file = StoredRollouts.of_batch(0, batch()).save(tmp_path / "whole.npz")
    arrays = dict(np.load(file))
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "cut.npz").write_bytes(file.read_bytes()[:-300])
    changes = {
        "other": {"pairs": np.zeros(3)}, "fewer": {**arrays, "finish": arrays["finish"][:1]},
        "no-groups": {name: value if name == "raster" else value[:0] for name, value in arrays.items()},
        "wide": {**arrays, "truth": arrays["truth"][:, :3]}, "objects": {**arrays, "box": np.array([None])},
    }  # fmt: skip
    for name, content in changes.items():
        np.savez(tmp_path / f"{name}.npz", **content)
    for name in ("text", "cut", *changes):
        with pytest.raises(UserError, match=rf"{name}\.npz is not a file of rollouts, or was cut short"):
            load_rollouts(tmp_path / f"{name}.npz")
