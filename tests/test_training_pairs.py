"""What a refiner learns from: sources of pairs at equal numbers."""

import collections

import numpy as np
import pytest
from listed_scenes import ListedScenes
from tiny_models import scenes

from moonseg_jax.errors import UserError
from moonseg_jax.pair_source import JoinedPairs, PairSource, identity_rows, stack_pairs
from moonseg_jax.pairs import PairBuffer
from moonseg_jax.training_pairs import require_batch, training_pairs
from moonseg_jax.types import CoarsePairs

SIDE = 16
IDS = [scene.examples[k].example_id for scene in scenes(4) for k in (0, 1)]


def rollouts(ids=IDS) -> PairBuffer:
    """A pair of every example; the two of a scene share their crop where both are the left half."""
    count = len(ids)
    crops = np.array([[0, 0, 0.5, 1 - 0.25 * (number // 2 % 2) * (number % 2)] for number in range(count)], np.float32)
    buffer = PairBuffer(100, SIDE)
    buffer.add(
        CoarsePairs(
            example_ids=np.array(ids, np.int32), crops=crops.reshape(-1, 4),
            coarse=np.arange(count)[:, None].repeat(SIDE * SIDE // 8, 1).astype(np.uint8),
            iou=np.full(count, 0.5, np.float32), policy_version=np.arange(count, dtype=np.int32) // 4,
        )
    )  # fmt: skip
    return buffer


@pytest.fixture
def file(tmp_path):
    return rollouts().save(tmp_path / "pairs.npz")


def opened(file, pairs_from="rollouts", count=None, side=SIDE, seed=3):
    return training_pairs(
        ListedScenes(), file=file, pairs_from=pairs_from, count=count, side=side, jitter=0.1, seed=seed
    )  # fmt: skip


def test_rollouts_stay_in_the_order_of_their_file(file):
    pairs = opened(file)
    assert [pairs.provenance(index).example_id for index in range(8)] == IDS
    image, coarse, truth = pairs[5]
    assert np.packbits(coarse).tolist() == [5] * (SIDE * SIDE // 8)
    assert image.shape == (SIDE, SIDE, 3) and truth.shape == coarse.shape
    assert pairs.description() == "8 of rollouts of 2 policy versions"


@pytest.mark.parametrize("count", [None, 5])
def test_sources_answer_the_same_examples_at_equal_numbers(file, count):
    sources = {name: opened(file, name, count) for name in ("rollouts", "synthetic", "both")}
    total = count or 8
    answered = {
        name: sorted(pairs.provenance(index).example_id for index in range(len(pairs)))
        for name, pairs in sources.items()
    }
    assert answered["rollouts"] == answered["synthetic"] == answered["both"]
    assert len(set(answered["both"])) == total
    made = [sources["both"].provenance(index).source for index in range(total)]
    assert collections.Counter(made) == {"rollout": total - total // 2, "synthetic": total // 2}
    assert sources["both"].description() == (
        f"{total - total // 2} of rollouts of 2 policy versions and {total // 2} synthetic"
    )


def test_pairs_of_one_image_and_rectangle_share_their_crop():
    pairs = PairSource(rollouts(), ListedScenes())
    numbers = pairs.crop_numbers()
    assert len(set(numbers.tolist())) == 6 and numbers.max() == 5
    assert numbers[0] == numbers[1] and numbers[4] == numbers[5] and numbers[2] != numbers[3]
    joined = JoinedPairs([pairs, pairs.part(np.array([6, 0]))])
    assert len(joined) == 10 and joined.provenance(9).example_id == IDS[0]
    assert set(joined.crop_numbers()[8:].tolist()) == {6, 7}
    for one, two in zip(joined[8], pairs[6], strict=True):
        np.testing.assert_array_equal(one, two)


def test_synthetic_pairs_need_no_file():
    pairs = opened(None, "synthetic", 20)
    assert len(pairs) == 20 and pairs.description() == "20 synthetic"
    with pytest.raises(UserError, match=r"set pairs to the pairs\.npz of an RL run"):
        opened(None, "both", 20)
    with pytest.raises(UserError, match="pair_count to how many"):
        opened(None, "synthetic")


def test_bad_input_is_named(file, tmp_path):
    with pytest.raises(UserError, match=r"pair_count is 9, and .*pairs\.npz holds 8 pairs: lower it"):
        opened(file, count=9)
    with pytest.raises(UserError, match="crops of 16 px, the model's are 48 px"):
        opened(file, side=48)
    with pytest.raises(UserError, match="there are no pairs to learn from"):
        opened(PairBuffer(10, SIDE).save(tmp_path / "empty.npz"))
    with pytest.raises(UserError, match=r"1 pairs answer examples that are not in this data set \(such as -?\d+\)"):
        opened(rollouts([*IDS, 123]).save(tmp_path / "other.npz"))
    require_batch(opened(file), 8, 2)
    with pytest.raises(UserError, match=r"images_per_batch is 9 and there are 8 pairs for 1 process.*at most 8,"):
        require_batch(opened(file), 9, 1)


def test_a_share_of_coarse_masks_becomes_the_ground_truth(file):
    items = [opened(file)[index] for index in range(8)]
    images, coarse, truth = stack_pairs(items, 4)
    np.testing.assert_array_equal(coarse, [item[1] for item in items])
    images, guarded, _ = stack_pairs(items, 4, 0.25)
    rows = identity_rows(8, 0.25, 4)
    assert rows.sum() == 2
    np.testing.assert_array_equal(guarded[rows], truth[rows])
    np.testing.assert_array_equal(guarded[~rows], coarse[~rows])
    np.testing.assert_array_equal(images, [item[0] for item in items])


def test_the_share_is_kept_on_average_and_rows_change_with_the_seed():
    drawn = np.array([identity_rows(8, 0.1, seed) for seed in range(2000)])
    assert set(drawn.sum(1).tolist()) == {0, 1}
    assert abs(drawn.mean() - 0.1) < 0.01
    assert (np.abs(drawn.mean(0) - 0.1) < 0.03).all()
    assert identity_rows(8, 0.0, 0).sum() == 0 and identity_rows(8, 1.0, 0).sum() == 8
