"""The refinement head against the official one, and its loop."""

import dataclasses
import functools
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import load_file

from moonseg_jax import config
from moonseg_jax.model import refiner

FIXTURE_HEAD = config.RefinerHeadConfig(
    embed=64, heads=8, layers=2, masks=4, mask_encoder_widths=(4, 8, 16), norm_groups=32
)


@pytest.fixture(params=["A_seed0", "A_seed1"])
def official(request) -> pathlib.Path:
    if "MOONSEG_FIXTURES" not in os.environ:
        pytest.skip("MOONSEG_FIXTURES does not name the folder of official outputs")
    return pathlib.Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3" / request.param


def from_official(weights: dict[str, np.ndarray], layers: int, masks: int) -> dict:
    """The parameters of `RefinementHead` from a state dict with the official names."""

    def dense(name):
        kernel = weights[f"{name}.weight"]
        return {"kernel": kernel.reshape(kernel.shape[:2]).T, "bias": weights[f"{name}.bias"]}

    def conv(name):
        return {"kernel": weights[f"{name}.weight"].transpose(2, 3, 1, 0), "bias": weights[f"{name}.bias"]}

    def norm(name):
        return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}

    def mlp(name, *indices):
        return {f"dense_{i}": dense(f"{name}.{index}") for i, index in enumerate(indices)}

    def attention(name):
        parts = zip(*(np.split(weights[f"{name}.in_proj_{kind}"], 3) for kind in ("weight", "bias")))
        projections = (dict(kernel=kernel.T, bias=bias) for kernel, bias in parts)
        return dict(zip(("query", "key", "value"), projections), out=dense(f"{name}.out_proj"))

    def stack(trees):
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

    def block(name):
        return {
            "self_attention": attention(f"{name}.output_self_attn"),
            "token_to_image": attention(f"{name}.cross_attn_token_to_image"),
            "image_to_token": attention(f"{name}.cross_attn_image_to_token"),
            "mlp": mlp(f"{name}.mlp", 0, 2),
            "norm_self": norm(f"{name}.norm1"),
            "norm_image": norm(f"{name}.norm2"),
            "norm_mlp": norm(f"{name}.norm3"),
            "norm_back": norm(f"{name}.norm4"),
        }

    upsampler = {}
    for i in range(3):
        kernel = weights[f"upsample.{6 * i}.weight"]
        upsampler |= {
            f"double_{i}": {"kernel": kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)},
            f"double_{i}_bias": weights[f"upsample.{6 * i}.bias"],
            f"norm_double_{i}": norm(f"upsample.{6 * i + 1}.norm"),
            f"conv_{i}": conv(f"upsample.{6 * i + 3}"),
            f"norm_conv_{i}": norm(f"upsample.{6 * i + 4}.norm"),
        }
    encoder = {}
    for i in range(4):
        encoder |= {
            f"conv_{i}": conv(f"mask_encoder.conv{i + 1}.0"),
            f"norm_{i}": norm(f"mask_encoder.conv{i + 1}.1"),
        }
    return {
        "image_projection": dense("image_proj"),
        "early_projection": dense("hq_fusion.early_proj.0"),
        "early_norm": norm("hq_fusion.early_proj.1"),
        "fusion_reduce": dense("hq_fusion.fusion.0"),
        "fusion_reduce_norm": norm("hq_fusion.fusion.1"),
        "fusion_mix": conv("hq_fusion.fusion.3"),
        "fusion_mix_norm": norm("hq_fusion.fusion.4"),
        "mask_encoder": encoder,
        "mask_tokens": weights["mask_tokens"],
        "iou_token": weights["iou_token"],
        "token_positions": weights["output_pe"],
        "image_positions": weights["image_pe"][0].transpose(1, 2, 0),
        "blocks": stack([block(f"transformer_blocks.{i}") for i in range(layers)]),
        "final_attention": attention("final_token_to_image"),
        "final_norm": norm("final_norm"),
        "upsampler": upsampler,
        "mask_query": dense("final_q_proj"),
        "mask_query_norm": norm("final_norm_up"),
        "mask_attention": attention("final_attn_up"),
        "mask_mlps": stack([mlp(f"mask_mlps.{i}", 0, 2, 4) for i in range(masks)]),
        "iou_mlp": mlp("iou_head", 0, 2, 4),
    }  # fmt: skip


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 + 1e-4 * np.abs(expected).max())


def test_head_equals_official(official):
    weights = {k: np.asarray(v, np.float32) for k, v in load_file(official / "refiner_head.safetensors").items()}
    params = from_official(weights, layers=2, masks=4)
    head = refiner.RefinementHead(FIXTURE_HEAD, grid=27)
    inputs, expected = np.load(official / "inputs.npz"), np.load(official / "expected.npz")
    final, early, mask = (inputs[f"head/{name}"] for name in ("final_features", "early_features", "mask"))
    declared = refiner.head_shapes(head, final.shape[-1])
    assert jax.tree.map(jnp.shape, declared) == jax.tree.map(jnp.shape, params)
    (logits, iou), inner = jax.jit(
        lambda: head.apply({"params": params}, final, early, mask[:, 0], capture_intermediates=True)
    )()
    close(logits, expected["head/logits"])
    close(iou, expected["head/iou"])
    code = inner["intermediates"]["mask_encoder"]["__call__"][0]
    close(np.asarray(code)[:, ::3, ::3].transpose(0, 3, 1, 2), expected["head/mask_embed_sub"])
    up = inner["intermediates"]["upsampler"]["__call__"][0]
    close(np.asarray(up)[:, ::8, ::8].transpose(0, 3, 1, 2), expected["head/up_sub"])


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_full_size_head_has_the_published_number_of_parameters():
    model = config.moondream3()
    features, mask = jnp.zeros((1, 729, 1152)), jnp.zeros((1, 378, 378))
    shapes = jax.eval_shape(refiner.make_head(model).init, jax.random.key(0), features, features, mask)["params"]
    assert count(shapes) == 6_147_460
    assert count(shapes["blocks"]) == 3_684_864
    assert count(shapes["upsampler"]) == 366_912
    assert count(shapes["mask_encoder"]) == 171_744
    assert count(shapes["final_attention"]) == 263_168
    assert count(shapes["iou_mlp"]) == 132_612


TOLERANCE = 1e-4
HEAD = refiner.RefinementHead(dataclasses.replace(FIXTURE_HEAD, embed=32, heads=4, layers=1, norm_groups=8), grid=4)
HEAD_STEP = jax.jit(lambda params, *inputs: HEAD.apply({"params": params}, *inputs))


def test_fresh_kernels_keep_the_variance_of_their_input():
    params = refiner.init_head(refiner.RefinementHead(FIXTURE_HEAD, grid=27), width=100, seed=0)
    kernels = {
        "image_projection": (params["image_projection"], 100),
        "convolution": (params["fusion_mix"], 9 * 64),
        "stacked block": (params["blocks"]["mlp"]["dense_0"], 64),
    }
    for layer, fan_in in kernels.values():
        assert layer["kernel"].std() == pytest.approx(fan_in**-0.5, rel=0.03)
        assert not layer["bias"].any()
    assert (params["early_norm"]["scale"] == 1).all()
    assert params["image_positions"].std() == pytest.approx(0.02, rel=0.03)


@functools.cache
def small_problem():
    keys = jax.random.split(jax.random.key(0), 4)
    final, early = jax.random.normal(keys[0], (2, 3, 16, 24))
    coarse = jax.random.bernoulli(keys[1], 0.5, (3, 32, 32)).astype(jnp.float32)
    return refiner.init_head(HEAD, width=24, seed=1), final, early, coarse


def test_loop_feeds_back_the_mask_with_the_best_score():
    params, final, early, mask = small_problem()
    loop = jax.jit(lambda *inputs: refiner.refine_loop(HEAD, *inputs, iterations=2))(params, final, early, mask)
    for step in range(2):
        logits, iou = HEAD_STEP(params, final, early, mask)
        best = np.argmax(iou, axis=1)
        np.testing.assert_array_equal(loop.best[step], best)
        np.testing.assert_allclose(loop.logits[step], logits, atol=TOLERANCE)
        mask = jax.nn.sigmoid(logits[np.arange(3), best])
        np.testing.assert_allclose(loop.masks[step], mask, atol=TOLERANCE)


def test_predictions_of_one_crop_do_not_depend_on_its_neighbours():
    params, final, early, coarse = small_problem()
    together = HEAD_STEP(params, final, early, coarse)
    shuffled = HEAD_STEP(params, final[::-1].at[0].add(1), early[::-1], coarse[::-1])
    for got, expected in zip(shuffled, together):
        np.testing.assert_allclose(got[1:], expected[1::-1], atol=TOLERANCE)
