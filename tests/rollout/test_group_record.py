"""What a run keeps of its groups: the batch's first ones, whole, and what all of it was paid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import micro

from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.errors import UserError
from moonseg_jax.policy import Policy
from moonseg_jax.rollout.group_record import (
    GROUPS_FILE,
    SHOWN_GROUPS,
    Payment,
    first_groups,
    load_groups,
    payment_of,
)
from moonseg_jax.rollout.score import Drawn
from moonseg_jax.rollout.stored import load_rollouts
from moonseg_jax.types import (
    INJECTED,
    SAMPLED,
    EdgeBatch,
    Example,
    Rollouts,
    Scene,
    Scored,
)

IMAGES, PHRASES, GROUP = 5, 2, 3
WORDS = ("the red star", "the small blue disc")


@pytest.fixture(scope="module")
def policy():
    return Policy.from_config(micro())


def examples(image):
    """One phrase in the first image, two in the others: the batch's second row is padding."""
    pixels = np.full((20, 30, 3), 40 * image, np.uint8)
    return tuple(
        Example(image=pixels, phrase=WORDS[k], target=None, image_id=image, example_id=10 * image + k)
        for k in range(1 if image == 0 else PHRASES)
    )


@pytest.fixture(scope="module")
def batch(policy):
    scenes = [Scene(examples=examples(image)) for image in range(IMAGES)]
    rows, layout = [scene.examples for scene in scenes], policy.layout(PHRASES)
    put = lambda tree: jax.tree.map(jnp.asarray, tree)  # noqa: E731
    return put(prompt_batch(rows, layout)), put(target_batch(rows, layout))


def rollouts_of(source=None, group=GROUP):
    """Completions whose numbers say which they are."""
    count = IMAGES * PHRASES * group
    number = jnp.arange(count)
    rollouts = Rollouts(
        token_ids=jnp.zeros((count, 4), jnp.int32), bins=jnp.zeros((count, 4, 2), jnp.int32),
        log_probs=jnp.zeros((count, 4)), lengths=number, budgets=number, finish=number % 3, experts=None, source=source,
    )  # fmt: skip
    return rollouts, Scored(iou=number / 100, reward=number / 100 - 1)


def drawn():
    count = IMAGES * PHRASES * GROUP
    points = jnp.broadcast_to((jnp.arange(count) / 100)[:, None, None, None], (count, 4, 2, 2))
    valid = jnp.broadcast_to(jnp.arange(4) < 2, (count, 4))
    edges = EdgeBatch(points=points, valid=valid, subpath=jnp.zeros((count, 4), jnp.int32))
    return Drawn(box=jnp.zeros((count, 4)), edges=edges)


@pytest.fixture(scope="module")
def record(batch, policy):
    prompts, targets = batch
    rollouts, scored = rollouts_of()
    payment = Payment(**payment_of(prompts, (rollouts, scored)))
    return first_groups(7, prompts, targets, rollouts, drawn(), policy.vocabulary, payment)


def test_the_payment_is_of_all_real_prompts_and_the_samples_of_the_first(record):
    rows = [0, *range(2, IMAGES * PHRASES)]
    expected = np.array(rows)[:, None] * GROUP + np.arange(GROUP)
    np.testing.assert_allclose(record.payment.iou, expected / 100, rtol=1e-6)
    np.testing.assert_allclose(record.payment.reward, expected / 100 - 1, rtol=1e-6)
    np.testing.assert_array_equal(record.payment.source, SAMPLED)
    np.testing.assert_array_equal(record.samples.lengths, expected[:SHOWN_GROUPS])
    np.testing.assert_allclose(record.samples.points[:, :, 0, 0, 0], expected[:SHOWN_GROUPS] / 100, rtol=1e-6)
    assert set(record.samples.steps) == {7}


def test_every_group_has_its_own_photo_and_phrase(record):
    assert record.phrases == (WORDS[0], *WORDS, *WORDS, WORDS[0])
    assert [int(photo[0, 0, 0]) for photo in record.photos] == [0, 40, 40, 80, 80, 120]
    assert list(record.samples.example_ids) == [0, 10, 11, 20, 21, 30]


def test_paths_put_beside_a_group_are_paid_but_are_no_samples(batch, policy):
    prompts, targets = batch
    source = jnp.tile(jnp.array([SAMPLED] * GROUP + [INJECTED]), IMAGES * PHRASES)
    payment = Payment(**payment_of(prompts, rollouts_of(source, GROUP + 1)))
    assert payment.iou.shape == (IMAGES * PHRASES - 1, GROUP + 1)
    np.testing.assert_array_equal(payment.source[:, -1], INJECTED)
    kept = first_groups(7, prompts, targets, rollouts_of()[0], drawn(), policy.vocabulary, payment)
    assert kept.samples.group == GROUP


def test_it_survives_the_disk_and_is_a_file_of_rollouts_too(record, tmp_path):
    file = record.save(tmp_path / GROUPS_FILE)
    loaded, stored = load_groups(file), load_rollouts(file)
    assert loaded.phrases == record.phrases and [path.name for path in tmp_path.iterdir()] == [GROUPS_FILE]
    np.testing.assert_array_equal(loaded.photos, record.photos)
    np.testing.assert_array_equal(loaded.payment.reward, record.payment.reward)
    for own in (loaded.samples, stored):
        np.testing.assert_array_equal(own.points, record.samples.points)
        np.testing.assert_array_equal(own.truth, record.samples.truth)


def test_a_file_cut_short_or_of_other_things_is_named(record, tmp_path):
    file = record.save(tmp_path / GROUPS_FILE)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"groups\.npz is not a file of rollouts"):
        load_groups(file)
    record.samples.save(file)
    with pytest.raises(UserError, match=r"groups\.npz is not a record of groups, or was cut short; remove it"):
        load_groups(file)
