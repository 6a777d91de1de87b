"""Scenes → batches: padding, phrases, the raster of the ground truth, targets."""

import dataclasses

import jax
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from tiny_models import micro_policy, scenes

from data_pipelines.loader import scene_batches
from moonseg_jax.batch import prompt_batch, target_batch, to_raster, true_mask
from moonseg_jax.errors import UserError
from moonseg_jax.paths.target import encode_target
from moonseg_jax.policy import Policy
from moonseg_jax.types import Example

POLICY = micro_policy()
PATHS = POLICY.config.paths


def example(mask: np.ndarray | None, phrase: str = "the red ring", **fields) -> Example:
    height, width = (48, 48) if mask is None else mask.shape
    target = None if mask is None else coco_mask.encode(np.asfortranarray(mask, np.uint8))
    image = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
    return Example(image=image, phrase=phrase, target=target, image_id=1, **{"example_id": 5} | fields)


def disc(side: int = 48) -> np.ndarray:
    rows, cols = np.mgrid[:side, :side]
    return (rows - side / 2) ** 2 + (cols - side / 3) ** 2 < (side / 4) ** 2


def test_prompts_stand_in_their_places_and_the_rest_is_padding():
    one, two = scenes(2)
    rows = [one.examples[:2], two.examples[:1]]
    batch = prompt_batch(rows, POLICY.layout(3))
    np.testing.assert_array_equal(batch.valid, [[True, True, False], [True, False, False]])
    np.testing.assert_array_equal(batch.example_ids[batch.valid], [0, 1, 8])
    assert (batch.example_ids[~batch.valid] == -1).all()
    for place, said in zip(((0, 0), (0, 1), (1, 0)), (*rows[0], *rows[1])):
        ids, _ = POLICY.vocabulary.prompt(said.phrase)
        assert batch.prompt_lengths[place] == len(ids)
        np.testing.assert_array_equal(batch.prompt_ids[place], np.pad(ids, (0, PATHS.max_prompt_tokens - len(ids))))
        np.testing.assert_array_equal(batch.ground_truth[place], coco_mask.decode(said.target))
    np.testing.assert_array_equal(batch.crops[:, 0], [one.examples[0].image, two.examples[0].image])
    assert not batch.prompt_ids[~batch.valid].any() and not batch.ground_truth[~batch.valid].any()
    assert (batch.prompt_lengths[~batch.valid] == 1).all()


def test_references_stand_between_prefix_and_phrase():
    said = example(disc(), references=((0.25, 0.5), (0.5, 0.75, 0.125, 1.0)))
    batch = prompt_batch([[said]], POLICY.layout(1))
    first, coord, size = len(PATHS.prompt_prefix), PATHS.coord_token, PATHS.size_token
    np.testing.assert_array_equal(batch.prompt_ids[0, 0, first : first + 5], [coord, coord, coord, coord, size])
    expected = [[0.25, 0], [0.5, 0], [0.5, 0], [0.75, 0], [0.125, 1.0]]
    np.testing.assert_array_equal(batch.prompt_values[0, 0, first : first + 5], expected)
    assert not batch.prompt_values[0, 0, first + 5 :].any()


def test_several_crops_cover_large_images_and_leave_the_rest_empty():
    layout = POLICY.layout(1, 1 + POLICY.config.vision.max_tiles)
    batch = prompt_batch([[example(disc(48))], [example(disc(70))]], layout)
    used = batch.stitch_rows.any(axis=(2, 3))
    np.testing.assert_array_equal(used[0], [False, True, False, False, False])
    np.testing.assert_array_equal(used[1], [False, True, True, True, True])
    assert not batch.crops[0, 2:].any() and batch.crops[1].any(axis=(1, 2, 3)).all()
    weight_of_all = np.einsum("icka,iclb->ikl", batch.stitch_rows, batch.stitch_cols)
    np.testing.assert_allclose(weight_of_all, 1.0, atol=1e-6)


def test_words_nobody_knows_are_refused():
    with pytest.raises(UserError, match="zeppelin"):
        prompt_batch([[example(disc(), phrase="the red zeppelin")]], POLICY.layout(1))


def test_raster_sets_pixels_that_are_at_least_half_covered():
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]], bool)
    np.testing.assert_array_equal(to_raster(mask, 2), [[True, False], [True, False]])
    np.testing.assert_array_equal(to_raster(mask, 4), mask)
    thirds = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    np.testing.assert_array_equal(to_raster(thirds, 2), [[True, False], [False, False]])


def test_raster_stretches_masks_of_any_shape():
    mask = np.zeros((96, 24), bool)
    mask[:48, :12] = True
    expected = np.zeros((48, 48), bool)
    expected[:24, :24] = True
    np.testing.assert_array_equal(to_raster(mask, 48), expected)
    small = np.array([[True, False], [False, False]])
    np.testing.assert_array_equal(to_raster(small, 4), np.kron(small, np.ones((2, 2), bool)))


def test_a_phrase_without_target_has_an_empty_mask():
    nothing = example(None)
    assert true_mask(nothing).shape == (48, 48) and not true_mask(nothing).any()
    batch = prompt_batch([[nothing]], POLICY.layout(1))
    assert batch.valid.all() and not batch.ground_truth.any()
    targets = target_batch([[nothing]], POLICY.layout(1))
    assert targets.lengths[0, 0] == 1 and targets.token_ids[0, 0, 0] == PATHS.eos


def test_targets_are_the_traced_masks_padded_with_eos():
    masks = [disc(), np.pad(np.ones((10, 20), bool), ((5, 33), (8, 20)))]
    rows = [[example(masks[0]), example(masks[1])], [example(masks[1])]]
    targets = target_batch(rows, POLICY.layout(2))
    for place, mask in zip(((0, 0), (0, 1), (1, 0)), (*masks, masks[1])):
        traced = encode_target(mask, vocabulary=POLICY.vocabulary, paths=PATHS, region=POLICY.config.region)
        length = len(traced.token_ids)
        assert targets.lengths[place] == length <= PATHS.max_new_tokens
        np.testing.assert_array_equal(targets.token_ids[place][:length], traced.token_ids)
        np.testing.assert_array_equal(targets.bins[place][:length], traced.bins)
        assert (targets.token_ids[place][length:] == PATHS.eos).all() and not targets.bins[place][length:].any()
    assert targets.lengths[1, 1] == 0 and (targets.token_ids[1, 1] == PATHS.eos).all()


def polygons_of(token_ids: np.ndarray) -> list[set[tuple[str, str]]]:
    """The set of vertices of every subpath."""
    subpaths = [piece.split() for piece in POLICY.vocabulary.decode(token_ids).split("M ")[1:]]
    return [set(zip(piece[0:-1:2], piece[1::2])) for piece in subpaths]


def test_random_order_depends_on_seed_and_place_alone_and_keeps_the_points():
    ring = disc() & ~np.pad(np.ones((8, 8), bool), ((20, 20), (12, 28)))
    rows = [[example(ring), example(ring)], [example(ring)]]
    canonical = target_batch(rows, POLICY.layout(2))
    one, again, other = (target_batch(rows, POLICY.layout(2), seed) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert (one.token_ids != other.token_ids).any()
    alone = target_batch([rows[0][:1]], POLICY.layout(2), 3)
    np.testing.assert_array_equal(one.token_ids[0, 0], alone.token_ids[0, 0])
    orders = {tuple(batch.token_ids[place]) for batch in (one, other) for place in ((0, 0), (0, 1), (1, 0))}
    assert len(orders) >= 4, "every row draws an order of its own"
    for batch in (one, other):
        np.testing.assert_array_equal(batch.lengths, canonical.lengths)
        np.testing.assert_array_equal(batch.bins, canonical.bins)
        for place in ((0, 0), (0, 1), (1, 0)):
            assert polygons_of(batch.token_ids[place]) == polygons_of(canonical.token_ids[place])


def test_a_resumed_loader_writes_the_same_orders():
    def collate(some, seed):
        return target_batch([scene.examples for scene in some], POLICY.layout(1), seed).token_ids

    settings = {"images_per_batch": 2, "phrases_per_image": 1, "seed": 5}
    first = scene_batches(scenes(4), collate, **settings)
    seen = [next(first) for _ in range(2)]
    state = first.get_state()
    later = [next(first) for _ in range(2)]
    resumed = scene_batches(scenes(4), collate, **settings)
    resumed.set_state(state)
    np.testing.assert_array_equal([next(resumed) for _ in range(2)], later)
    assert len({batch.tobytes() for batch in (*seen, *later)}) == 4


def test_shapes_depend_on_the_layout_alone():
    layout = POLICY.layout(2)
    few = prompt_batch([scenes(2)[0].examples[:1]], layout), target_batch([scenes(2)[0].examples[:1]], layout)
    many = prompt_batch([scenes(2)[1].examples[:2]], layout), target_batch([scenes(2)[1].examples[:2]], layout)
    assert jax.tree.map(np.shape, few) == jax.tree.map(np.shape, many)


@pytest.mark.parametrize("grammar", ["polygon", "full"])
def test_the_config_chooses_the_dialect_and_whether_a_phrase_may_have_no_target(grammar):
    """Targets and the grammar of a policy agree, whatever its config says."""
    paths = dataclasses.replace(PATHS, grammar=grammar, explicit_lines=True, allow_no_target=True)
    policy = Policy.from_config(dataclasses.replace(POLICY.config, paths=paths))
    targets = target_batch([[example(disc()), example(None)]], policy.layout(2))
    assert "L" in policy.vocabulary.decode(targets.token_ids[0, 0])
    assert "L" not in POLICY.vocabulary.decode(target_batch([[example(disc())]], POLICY.layout(1)).token_ids[0, 0])
    assert targets.lengths[0, 1] == 1 and targets.token_ids[0, 1, 0] == paths.eos
    states = policy.grammar.states(targets.token_ids[0])
    remaining = paths.max_new_tokens - np.broadcast_to(np.arange(paths.max_new_tokens), states.shape)
    mask = np.asarray(policy.grammar.mask(states, remaining))
    legal = np.take_along_axis(mask, targets.token_ids[0][..., None], axis=-1)[..., 0]
    assert legal[0, : targets.lengths[0, 0]].all() and legal[1, 0]
    assert not np.asarray(POLICY.grammar.mask(POLICY.grammar.initial, 24))[paths.eos]
