"""Weights on their way from the devices that learn to those that sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import micro_params, micro_policy

from moonseg_jax import partition
from moonseg_jax.config import moondream3
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.placement import within_hosts
from moonseg_jax.placement.weights import as_they_arrive, travelling_weights
from moonseg_jax.placement.within_hosts import WithinHosts
from moonseg_jax.plan.stand_in import with_stand_in
from moonseg_jax.policy import Policy
from moonseg_jax.sharding import NO_MESH, make_mesh, put_parameters

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="fewer than 8 devices")


@pytest.fixture
def small_counts_as_large(monkeypatch):
    monkeypatch.setattr(partition, "SMALLEST_SPLIT", 64)
    monkeypatch.setattr("moonseg_jax.placement.weights.LARGE", 4096)


def meshes():
    devices = jax.devices()
    return make_mesh(devices[:4], MeshConfig(fsdp=2, tensor=2)), make_mesh(devices[4:], MeshConfig(tensor=4))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_they_arrive_as_they_are_split_otherwise_and_cast(dtype, small_counts_as_large):
    learner, sampler = meshes()
    params, shapes = micro_params(), micro_policy().shapes()
    exchange = WithinHosts(learner, sampler, shapes, dtype)
    with jax.set_mesh(NO_MESH):
        arrived = exchange.weights(put_parameters(learner, params))
    for found, given, expected in zip(
        *map(jax.tree.leaves, (arrived, params, as_they_arrive(shapes, dtype))), strict=True
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(np.asarray(found), np.asarray(jnp.asarray(given, expected.dtype)))
        assert set(found.sharding.device_set) == set(sampler.devices.flat)
    assert exchange.bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(arrived))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(arrived)} == {"float32", dtype}
    assert any(leaf.sharding.spec for leaf in jax.tree.leaves(arrived))


def test_no_device_holds_more_than_the_largest_layer_beside_its_own_weights(small_counts_as_large, monkeypatch):
    learner, sampler = meshes()
    shapes = micro_policy().shapes()
    gathered = []
    monkeypatch.setattr(within_hosts, "_part", lambda here, index, device, part=within_hosts._part: (
        gathered.append(here.nbytes), part(here, index, device))[1])  # fmt: skip
    with jax.set_mesh(NO_MESH):
        WithinHosts(learner, sampler, shapes, "float32").weights(put_parameters(learner, micro_params()))
    largest = max(int(np.prod(w.piece)) * 4 for w in travelling_weights(shapes, learner, sampler, "float32"))
    assert max(gathered) == largest


def test_layers_of_the_published_size_travel_one_by_one(tmp_path):
    shapes = Policy.from_config(with_stand_in(moondream3(), tmp_path)).shapes()
    weights = travelling_weights(shapes, *meshes(), "bfloat16")
    assert sum(weight.bytes for weight in weights) > 18e9
    # One layer's 64 experts, up or down: 64 * 2048 * 2048 numbers of 2 bytes.
    assert max(int(np.prod(weight.piece)) * weight.dtype.itemsize for weight in weights) == 64 * 2048 * 2048 * 2
