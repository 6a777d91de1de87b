"""The table of names covers the published model exactly."""

import math

import pytest

from moonseg_jax.config import moondream3
from moonseg_jax.convert.names import Naming, policy_places
from moonseg_jax.convert.refiner_names import refiner_places
from moonseg_jax.convert.shapes import expected_shapes, policy_shapes, refiner_shapes

FULL = moondream3()


@pytest.mark.parametrize("naming", Naming)
def test_full_model_has_the_published_tensors_and_parameters(naming):
    expected = list(expected_shapes(policy_places(FULL, naming), policy_shapes(FULL)))
    assert len({place.name for place, _ in expected}) == 662
    assert sum(math.prod(shape) for _, shape in expected) == 9_268_626_928


def test_every_leaf_is_filled_by_exactly_one_tensor_per_layer():
    shapes = policy_shapes(FULL)
    filled = [(path, place.layer) for place in policy_places(FULL, Naming.HF) for path in place.paths]
    assert len(filled) == len(set(filled))
    layers = {path: sum(other == path for other, _ in filled) for path in shapes}
    assert {path: shapes[path][0] for path, count in layers.items() if count > 1} == {
        path: count for path, count in layers.items() if count > 1
    }
    assert min(layers.values()) == 1


def test_full_refiner_has_the_published_shapes_and_parameters():
    shapes = {place.name: shape for place, shape in expected_shapes(refiner_places(FULL.refiner), refiner_shapes(FULL))}
    assert sum(math.prod(shape) for shape in shapes.values()) == 6_147_460
    assert shapes["image_pe"] == (1, 256, 27, 27)
    assert shapes["hq_fusion.fusion.0.weight"] == (256, 512, 1, 1)
    assert shapes["mask_encoder.conv4.0.weight"] == (256, 64, 3, 3)
    assert shapes["transformer_blocks.1.output_self_attn.in_proj_weight"] == (768, 256)
    assert shapes["upsample.6.weight"] == (128, 64, 2, 2)
    assert shapes["upsample.16.norm.bias"] == (32,)
    assert shapes["final_attn_up.in_proj_weight"] == (96, 32)
    assert shapes["iou_head.4.weight"] == (4, 256)


def test_shapes_are_those_of_the_specification():
    for naming, fourier, embedding in (
        (Naming.MD3, "region_model.size_features.weight", "text_model.transformer.embd.wte.weight"),
        (Naming.HF, "model.region.size_features", "model.text.wte"),
    ):
        shapes = {
            place.name: shape for place, shape in expected_shapes(policy_places(FULL, naming), policy_shapes(FULL))
        }
        assert shapes[fourier] == ((256, 2) if naming is Naming.MD3 else (2, 256))
        assert shapes[embedding] == (51200, 2048)
    assert shapes["model.text.blocks.4.mlp.fc1.weight"] == (64, 2048, 2048)
    assert shapes["model.text.blocks.23.mlp.fc2.weight"] == (64, 2048, 1024)
    assert shapes["model.text.blocks.3.mlp.fc1.weight"] == (8192, 2048)
    assert shapes["model.text.blocks.0.attn.tau.wq"] == (32, 6144)
    assert shapes["model.vision.pos_emb"] == (1, 729, 1152)
