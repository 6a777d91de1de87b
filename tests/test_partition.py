"""Which parameters are split, over what, and that none is held whole by accident."""

import math

import jax
import numpy as np
import pytest

from moonseg_jax.axes import DATA, EXPERT, EXPERTS, FSDP, TENSOR
from moonseg_jax.config import moondream3
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.refiner import head_shapes, make_head
from moonseg_jax.partition import partition_spec, partition_specs, path_of

POD = {DATA: 1, FSDP: 32, EXPERT: 8, TENSOR: 1}
MIB = 2**20
SMALL = {
    "text/dense/attn/tau_q", "text/dense/attn/tau_v", "text/routed/attn/tau_q", "text/routed/attn/tau_v",
    "text/routed/moe/router/kernel", "vision/position",
}  # fmt: skip
"""What tensor parallelism alone leaves whole: 49 MiB."""
CARRIED = 4
"""Bytes of a parameter in float32."""


@pytest.fixture(scope="module")
def published():
    """Shapes of all parameters at the published sizes; those of the refiner under `refiner`."""
    config = moondream3()
    vision, prompt = config.vision, config.paths.max_prompt_tokens
    stitch = np.zeros((1, 1, vision.grid, vision.grid), np.float32)
    policy = jax.eval_shape(
        Moondream(config).init, jax.random.key(0), np.zeros((1, 1, vision.crop, vision.crop, 3), np.uint8), stitch,
        stitch, np.zeros((1, prompt), np.int32), np.zeros((1, prompt, 2), np.float32), np.ones(1, np.int32),
    )["params"]  # fmt: skip
    return {"policy": policy, "refiner": head_shapes(make_head(config), vision.width)}


def shards(spec, sizes):
    """Parts that a leaf is split into."""
    names = [name for split in spec for name in ((split,) if isinstance(split, str) else split or ())]
    return math.prod(sizes[name] for name in names)


@pytest.mark.parametrize(
    "sizes",
    [POD, {DATA: 8, FSDP: 32, EXPERT: 1, TENSOR: 1}, {DATA: 4, FSDP: 1, EXPERT: 1, TENSOR: 16}, {FSDP: 8, TENSOR: 8}],
    ids=["experts", "fsdp", "tensor", "fsdp-and-tensor"],
)
def test_no_parameter_above_one_mebibyte_is_held_whole(published, sizes):
    specs = partition_specs(published["policy"], sizes)
    leaves = jax.tree_util.tree_leaves_with_path(published["policy"])
    whole = [
        path_of(path)
        for (path, leaf), spec in zip(leaves, jax.tree.leaves(specs), strict=True)
        if leaf.size * CARRIED > MIB and shards(spec, sizes) == 1
    ]
    assert set(whole) == (SMALL if sizes.get(FSDP, 1) == sizes.get(EXPERT, 1) == 1 else set())


def test_a_pod_slice_holds_its_share(published):
    specs = jax.tree.leaves(partition_specs(published["policy"], POD))
    leaves = jax.tree.leaves(published["policy"])
    held = sum(leaf.size // shards(spec, POD) for leaf, spec in zip(leaves, specs, strict=True))
    everything = sum(leaf.size for leaf in leaves)
    assert everything == 9_268_626_928
    assert everything / 256 < held < 1.35 * everything / 256, "vision's 1,152 is no multiple of 256"


def test_whole_experts_stay_together(published):
    sizes = {FSDP: 4, EXPERT: 8, TENSOR: 2}
    moe = partition_specs(published["policy"], sizes)["text"]["routed"]["moe"]
    assert moe["up"] == moe["down"] == jax.P(None, EXPERTS, FSDP, None)


def test_heads_lie_along_what_reads_them():
    sizes = {FSDP: 2, EXPERT: 1, TENSOR: 4}
    assert partition_spec("text/routed/attn/qkv/kernel", (20, 2048, 6144), sizes) == jax.P(None, FSDP, TENSOR)
    assert partition_spec("text/routed/attn/proj/kernel", (20, 2048, 2048), sizes) == jax.P(None, TENSOR, FSDP)


def test_a_dimension_that_its_axes_do_not_divide_stays_whole_and_another_is_split():
    sizes = {FSDP: 32, TENSOR: 32}
    # 588 = 4 x 147 is no multiple of 32, 1,152 is; tensor already has that one.
    assert partition_spec("vision/patch_embedding/kernel", (588, 1152), sizes) == jax.P(None, TENSOR)
    assert partition_spec("vision/patch_embedding/kernel", (588, 1152), {FSDP: 32}) == jax.P(None, FSDP)
    assert partition_spec("vision/blocks/fc1/kernel", (27, 1152, 4304), sizes) == jax.P(None, FSDP, None)


def test_optimizer_states_lie_like_the_parameters_they_belong_to(published):
    sizes = {FSDP: 8, EXPERT: 4}
    up = published["policy"]["text"]["routed"]["moe"]["up"]
    state = ({"mu": {"policy": {"text": {"routed": {"moe": {"up": up}}}}}}, up)
    specs = partition_specs(state, sizes)
    assert jax.tree.leaves(specs)[0] == jax.P(None, EXPERT, FSDP, None)
    assert specs[1] == jax.P(), "only names tell what a leaf is"
