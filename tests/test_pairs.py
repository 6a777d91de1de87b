"""Pairs of coarse outline and ground truth, and the buffer that keeps them."""

import jax.numpy as jnp
import numpy as np
import pytest

from moonseg_jax.errors import UserError
from moonseg_jax.pairs import FIELDS, MIN_IOU, PairBuffer, crop_image, crop_mask, crop_rectangle, make_pairs
from moonseg_jax.types import CoarsePairs, EdgeBatch

SIDE = 16


def test_crop_grows_by_a_quarter_per_side_and_stays_in_the_image():
    boxes = jnp.array([[0.5, 0.5, 0.4, 0.2], [0.1, 0.9, 0.2, 0.4]])
    np.testing.assert_allclose(crop_rectangle(boxes), [[0.2, 0.35, 0.8, 0.65], [0, 0.625, 0.25, 1]], atol=1e-6)


def squares(corners) -> EdgeBatch:
    """One axis-parallel rectangle per row, corners x0, y0, x1, y1 in units of the image."""
    points = []
    for x0, y0, x1, y1 in corners:
        ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        points.append([[ring[i], ring[(i + 1) % 4]] for i in range(4)])
    shape = (len(points), 4)
    return EdgeBatch(
        points=jnp.array(points), valid=jnp.ones(shape, bool), subpath=jnp.zeros(shape, jnp.int32)
    )  # fmt: skip


def pairs_of(iou, version=0) -> CoarsePairs:
    iou = np.asarray(iou, np.float32)
    count = len(iou)
    return CoarsePairs(
        example_ids=np.arange(count, dtype=np.int32), crops=np.zeros((count, 4), np.float32),
        coarse=np.full((count, SIDE * SIDE // 8), 255, np.uint8), iou=iou,
        policy_version=np.full(count, version, np.int32),
    )  # fmt: skip


def test_outlines_are_drawn_in_the_frame_of_their_crop():
    # The box is the square itself, so the crop is one and a half times as wide and the square fills its middle.
    corners = [[0.2, 0.4, 0.6, 0.8]]
    made = make_pairs(
        jnp.array([7]), jnp.array([[0.4, 0.6, 0.4, 0.4]]), squares(corners), jnp.array([0.5]), jnp.int32(3), 12
    )
    np.testing.assert_allclose(made.crops, [[0.1, 0.3, 0.7, 0.9]], atol=1e-6)
    mask = np.unpackbits(np.asarray(made.coarse[0]), count=144).reshape(12, 12)
    expected = np.zeros((12, 12), int)
    expected[2:10, 2:10] = 1
    np.testing.assert_array_equal(mask, expected)
    assert (int(made.example_ids[0]), int(made.policy_version[0]), float(made.iou[0])) == (7, 3, 0.5)


def test_outlines_of_other_objects_are_marked_and_dropped():
    box = jnp.tile(jnp.array([[0.5, 0.5, 0.5, 0.5]]), (3, 1))
    iou = jnp.array([MIN_IOU, MIN_IOU - 0.01, 0.9])
    made = make_pairs(
        jnp.arange(3), box, squares([[0.25, 0.25, 0.75, 0.75]] * 3), iou, jnp.int32(0), SIDE
    )  # fmt: skip
    buffer = PairBuffer(100, SIDE)
    buffer.add(made)
    assert buffer.example_ids().tolist() == [0, 2]
    example_id, rectangle, mask = buffer.pair(1)
    assert example_id == 2
    np.testing.assert_allclose(rectangle, [0.125, 0.125, 0.875, 0.875])
    np.testing.assert_array_equal(mask, np.unpackbits(np.asarray(made.coarse[2])).reshape(SIDE, SIDE))


def test_full_bands_keep_as_many_pairs_of_every_version():
    buffer = PairBuffer(30, SIDE)  # six of a band
    for version in range(5):
        buffer.add(pairs_of([0.95, 0.96, 0.97, 0.98, 0.15], version=version))
    kept = buffer.state()
    inside = kept["iou"] > 0.8
    assert np.bincount(kept["policy_version"][inside]).tolist() == [1, 1, 1, 1, 2]
    assert np.bincount(kept["policy_version"][~inside]).tolist() == [1] * 5
    assert len(set(kept["iou"][inside].tolist())) > 1, "not always the same row of a batch"


def test_a_state_of_a_run_before_goes_on():
    # Written when full bands kept their newest pairs: one version only, and more of it than its share would be.
    before = {name: getattr(pairs_of([0.91, 0.92, 0.93], version=9), name) for name in FIELDS}
    buffer = PairBuffer(15, SIDE)
    buffer.load_state(before)
    assert len(buffer) == 3 and buffer.state().keys() == set(FIELDS)
    buffer.add(pairs_of([0.94, 0.95, 0.96], version=10))
    assert np.bincount(buffer.state()["policy_version"])[9:].tolist() == [1, 2]


def test_every_pair_knows_where_it_comes_from():
    buffer = PairBuffer(10, SIDE)
    buffer.add(pairs_of([0.25, 0.75], version=4))
    source, example_id, crop, iou, version = buffer.provenance(1)
    assert (source, example_id, crop.tolist(), iou, version) == ("rollout", 1, [0.0] * 4, 0.75, 4)


def test_state_and_file_bring_the_buffer_back(tmp_path):
    buffer = PairBuffer(10, SIDE)
    buffer.add(pairs_of([0.2, 0.6, 0.9], version=4))
    restored = PairBuffer(10, SIDE)
    restored.load_state(buffer.state())
    buffer.save(tmp_path / "pairs.npz")
    read = PairBuffer.load(tmp_path / "pairs.npz", SIDE)
    for other in (restored, read):
        for name in FIELDS:
            np.testing.assert_array_equal(other.state()[name], buffer.state()[name])


def test_missing_or_foreign_files_are_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="no such file of pairs"):
        PairBuffer.load(tmp_path / "pairs.npz", SIDE)
    PairBuffer(10, SIDE).save(tmp_path / "pairs.npz")
    with pytest.raises(UserError, match="crops of 16 px, the model's are 96 px"):
        PairBuffer.load(tmp_path / "pairs.npz", 96)


def test_a_file_that_was_cut_short_is_a_clear_error(tmp_path):
    file = tmp_path / "pairs.npz"
    PairBuffer(10, SIDE).save(file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"pairs\.npz is not a file of pairs, or was cut short"):
        PairBuffer.load(file, SIDE)
    file.write_text("no pairs at all")
    with pytest.raises(UserError, match="is not a file of pairs"):
        PairBuffer.load(file, SIDE)


def test_every_process_writes_its_own_file_and_all_are_read_together(tmp_path):
    file = tmp_path / "pairs.npz"
    for process, iou in enumerate(([0.2, 0.9], [0.5])):
        buffer = PairBuffer(10, SIDE)
        buffer.add(pairs_of(iou, version=process))
        buffer.save(file, process, 2)
        if process == 0:
            with pytest.raises(UserError, match="pairs of 2 processes are needed, and found are pairs-0-of-2"):
                PairBuffer.load(file, SIDE)
    assert {part.name for part in tmp_path.iterdir()} == {"pairs-0-of-2.npz", "pairs-1-of-2.npz"}
    read = PairBuffer.load(file, SIDE).state()
    np.testing.assert_allclose(read["iou"], [0.2, 0.9, 0.5])
    assert read["policy_version"].tolist() == [0, 0, 1] and read["example_ids"].tolist() == [0, 1, 0]


def test_a_crop_of_whole_pixels_at_its_own_size_is_a_window():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 64, 3), np.uint8)
    rectangle = np.array([16 / 64, 8 / 32, 32 / 64, 24 / 32])
    np.testing.assert_array_equal(crop_image(image, rectangle, 16), image[8:24, 16:32])
    np.testing.assert_array_equal(crop_mask(image[..., 0] > 99, rectangle, 16), image[8:24, 16:32, 0] > 99)


def test_pixel_centres_lie_at_halves():
    # Stretched to half its size, a pixel lies in the middle of four.
    image = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    rectangle = np.array([4 / 40, 8 / 40, 36 / 40, 40 / 40])
    expected = image[8:40, 4:36].reshape(16, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(crop_image(image, rectangle, 16) - expected).max() <= 1


def test_pixels_and_outlines_share_one_frame():
    # A square drawn as edges, as a mask and as pixels must look the same in any crop, odd fractions included.
    mask = np.zeros((96, 96), bool)
    mask[30:60, 21:51] = True
    box = jnp.array([[0.41, 0.44, 0.37, 0.39]])
    edges = squares([[21 / 96, 30 / 96, 51 / 96, 60 / 96]])
    made = make_pairs(jnp.array([0]), box, edges, jnp.array([1.0]), jnp.int32(0), 96)
    drawn = np.unpackbits(np.asarray(made.coarse[0])).reshape(96, 96).astype(bool)
    rectangle = np.asarray(made.crops[0])
    cut = crop_mask(mask, rectangle, 96)
    pixels = crop_image(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), rectangle, 96)[..., 0] >= 128
    for other in (cut, pixels):
        assert np.count_nonzero(drawn & other) / np.count_nonzero(drawn | other) > 0.98
