"""Features that are computed once per crop, and those that are computed at every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from listed_scenes import ListedScenes
from tiny_models import micro_params, micro_policy

from moonseg_jax.crop_features import feature_source
from moonseg_jax.errors import UserError
from moonseg_jax.learner.refiner import make_crop_encoder
from moonseg_jax.sharding import make_mesh
from moonseg_jax.synthetic_pairs import SyntheticPairs, drawn_examples

SIDE = 48
ONE = {"vision": jnp.ones(())}
PAIRS = SyntheticPairs(drawn_examples(ListedScenes(), 0), 6, SIDE, 0, 0.1)


class SharedCrops:
    """Six pairs, of which two by two have one crop; counts what is read."""

    side = SIDE

    def __init__(self):
        self.reads = []

    def __len__(self):
        return len(PAIRS)

    def __getitem__(self, index):
        self.reads.append(int(index))
        return (PAIRS[index // 2 * 2][0], *PAIRS[index][1:])

    def crop_numbers(self):
        return np.arange(6) // 2


def source(pairs, encode, params, *, cache, share=0.0, limit=1.0):
    return feature_source(
        pairs, encode, params, make_mesh(), identity_share=share, cache=cache, limit_gib=limit
    )  # fmt: skip


def batch_of(features, rows, seed=0):
    return features.batch(features.collate([features.items[row] for row in rows], seed))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_kept_features_are_those_of_every_step(share):
    encode, params = make_crop_encoder(micro_policy().model), micro_params()
    kept, fresh = (source(SharedCrops(), encode, params, cache=cache, share=share) for cache in (True, False))
    for seed, rows in enumerate(([0, 3], [3, 1], [5, 4], [0, 3])):
        ours, theirs = batch_of(kept, rows, seed), batch_of(fresh, rows, seed)
        np.testing.assert_array_equal(ours.coarse, theirs.coarse)
        np.testing.assert_array_equal(ours.truth, theirs.truth)
        for one, two in zip(ours.features, theirs.features, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)
        assert float(jnp.std(theirs.features[0])) > 0.1


def test_kept_features_do_not_depend_on_the_order_they_were_asked_for():
    encode, params = make_crop_encoder(micro_policy().model), micro_params()
    whole, resumed = (source(SharedCrops(), encode, params, cache=True) for _ in range(2))
    for rows in ([5, 1], [3, 0], [2, 4]):
        batch_of(whole, rows)
    for one, two in zip(batch_of(whole, [2, 4]).features, batch_of(resumed, [2, 4]).features, strict=True):
        np.testing.assert_array_equal(one, two)


def counted():
    """An encoder of sums, and the list of how many crops each call got."""
    calls = []

    def encode(params, crops):
        if not isinstance(crops, jax.core.Tracer):
            calls.append(len(crops))
        total = jnp.sum(crops, axis=(1, 2)) * params["vision"]
        return total[:, None], 2 * total[:, None]

    return encode, calls


def test_each_crop_is_encoded_once_and_each_pair_read_once():
    pairs, (encode, calls) = SharedCrops(), counted()
    features = source(pairs, encode, ONE, cache=True)
    assert calls == [] and pairs.reads == []
    for rows in ([4, 5, 0], [1, 0, 4], [5, 2, 3], [3, 2, 1]):
        found = batch_of(features, rows)
        expected = np.stack([PAIRS[row // 2 * 2][0].sum((0, 1), dtype=np.float32) for row in rows])
        np.testing.assert_array_equal(found.features[0][:, 0], expected)
        np.testing.assert_array_equal(found.features[1][:, 0], 2 * expected)
        np.testing.assert_array_equal(found.coarse, [PAIRS[row][1] for row in rows])
    assert sum(calls) == 3 * jax.local_device_count()
    assert sorted(pairs.reads) == [0, 1, 2, 3, 4, 5]


def test_what_was_read_ahead_is_neither_lost_nor_encoded_twice():
    pairs, (encode, calls) = SharedCrops(), counted()
    features = source(pairs, encode, ONE, cache=True)
    early, late = features.collate([0, 2], 0), features.collate([2, 1], 0)
    features.batch(early)
    found = features.batch(late)
    np.testing.assert_array_equal(found.truth, [PAIRS[2][2], PAIRS[1][2]])
    assert sum(calls) == 2 * jax.local_device_count()


def test_features_that_do_not_fit_are_refused_with_their_size():
    # 3 crops of (8 + 8) * 3 * 4 bytes, 6 pairs of two masks of 288 bytes.
    def encode(params, crops):
        return jnp.zeros((len(crops), 8, 3)), jnp.zeros((len(crops), 8, 3))

    need = (3 * 192 + 6 * 2 * 288) / 2**30
    source(SharedCrops(), encode, ONE, cache=True, limit=need)
    message = "features of 3 image crops, 0.00 MiB each, need 0.00 GiB .*feature_cache_gib is .*cache_features to False"
    with pytest.raises(UserError, match=message):
        source(SharedCrops(), encode, ONE, cache=True, limit=need * 0.999)


def test_features_beyond_the_machine_are_refused_whatever_the_setting(monkeypatch):
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4, "SC_PHYS_PAGES": 100}.__getitem__)
    with pytest.raises(UserError, match=r"this machine has 0\.0 GiB"):
        source(SharedCrops(), counted()[0], ONE, cache=True, limit=1e6)
