"""Official config.json to our config and back."""

import dataclasses
import json

import official_checkpoints
import pytest

from moonseg_jax.config import moondream3, tiny
from moonseg_jax.convert.config import model_config, official_fields, read_config, refiner_encoder_config
from moonseg_jax.errors import UserError


def test_no_fields_give_the_published_model():
    assert model_config({}) == moondream3()


@pytest.mark.parametrize("config", [tiny(), moondream3(), official_checkpoints.toy(dense_layers=3)])
def test_exported_fields_give_the_same_model(config):
    variant = dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, tau_gelu="exact"),
        region=dataclasses.replace(config.region, coord_top="bins"),
    )
    restored = model_config(json.loads(json.dumps(official_fields(variant, "hf"))))
    if config.text.dense_layers == config.text.layers:
        # Without routed blocks there is no section `moe`: the sizes of experts mean nothing.
        blank = {field: getattr(moondream3().text, field) for field in ("experts", "active_experts", "expert_width")}
        variant = dataclasses.replace(variant, text=dataclasses.replace(variant.text, **blank))
    assert restored == variant


def test_a_fixtures_config_gives_its_sizes():
    fields = read_config(official_checkpoints.fixture("A_seed0") / "config.json")
    config = model_config(fields)
    assert (config.vision.early_layer, config.vision.crop, config.text.dense_layers, config.text.experts) == (
        1,
        42,
        2,
        8,
    )
    assert (config.region.size_bins, config.refiner.embed, config.refiner.mask_encoder_widths) == (128, 64, (4, 8, 16))
    assert config.context_needed <= config.text.context
    encoder = refiner_encoder_config(fields)
    assert (encoder.vision.width, encoder.vision.grid, encoder.vision.early_layer) == (32, 27, 8)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": {"n_layers": "four"}}, r"text\.n_layers is 'four'"),
        ({"text": {"n_kv_heads": 8}}, r"n_kv_heads must equal"),
        ({"region": {"size_out_dim": 7}}, r"size_out_dim is 7"),
        ({"tau_gelu": "relu"}, r"tau_gelu is 'relu'"),
        ({"vision": {"crop_size": 100}}, r"multiple of vision\.patch"),
        ({"vision": 3}, r"vision must be an object"),
        ({"region": {"decoder_arch": "mlp"}}, r"decoder_arch must be linear"),
        ({"paths": {"colour": 1}}, r"unknown fields: colour"),
        ({"text": {"moe": {"experts_per_token": 0}}}, r"text\.moe\.experts_per_token is 0; it must be at least 1"),
        ({"text": {"ff_dim": -3}}, r"text\.ff_dim is -3"),
        ({"region": {"size_out_dim": 0}}, r"size_out_dim is 0"),
        ({"tokens": {"coord": "five"}}, r"tokens\.coord is 'five'"),
        ({"refiner": {"embed_dim": 48}}, r"embed_dim 48 gives the mask encoder \(3, 6, 12, 48\) channels"),
        ({"refiner": {"num_heads": 7}}, r"embed_dim is 256; it must be a multiple of num_heads \(7\)"),
    ],
)
def test_unusable_fields_are_named(fields, said):
    with pytest.raises(UserError, match=said):
        model_config(fields)
