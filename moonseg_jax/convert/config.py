"""Official `config.json` ↔ `ModelConfig`.

The sections `vision`, `text` and `region` have the fields of the official config classes; what is absent has the
published value. `refiner`, `tau_gelu`, `vision_early_layer` and our own section `paths` are optional too. Where
official sources disagree (moondream3 specification §13), the variant is a field: `tau_gelu` (tanh | exact),
`region.coord_top` (bins-1 | bins), `vision_early_layer`; the region LayerNorm is detected from the tensors.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from moonseg_jax.config import (
    ModelConfig,
    PathConfig,
    RefinerHeadConfig,
    RegionConfig,
    TextConfig,
    VisionConfig,
    moondream3,
)
from moonseg_jax.errors import UserError

Fields = Mapping[str, Any]

VISION_FIELDS = {
    "enc_dim": "width", "enc_n_layers": "layers", "enc_n_heads": "heads", "enc_ff_dim": "mlp_width",
    "enc_patch_size": "patch", "crop_size": "crop", "max_crops": "max_tiles", "overlap_margin": "overlap_margin",
    "proj_inner_dim": "projection_width",
}  # fmt: skip
TEXT_FIELDS = {
    "dim": "width", "n_layers": "layers", "n_heads": "heads", "ff_dim": "mlp_width", "vocab_size": "vocabulary",
    "max_context": "context", "rope_theta": "rope_theta",
}  # fmt: skip
MOE_FIELDS = {
    "start_layer": "dense_layers", "num_experts": "experts", "experts_per_token": "active_experts",
    "expert_inner_dim": "expert_width",
}  # fmt: skip
REGION_FIELDS = {
    "coord_feat_dim": "coord_features", "coord_out_dim": "coord_bins", "size_feat_dim": "size_features",
    "coord_top": "coord_top",
}  # fmt: skip
REFINER_FIELDS = {
    "embed_dim": "embed", "num_heads": "heads", "num_layers": "layers", "num_masks": "masks",
    "norm_groups": "norm_groups",
}  # fmt: skip
"""Official field → ours."""
MAY_BE_ZERO = ("overlap_margin", "dense_layers")
"""Our fields that sizes of 0 make sense for."""
TAU_GELU = {"tanh": "tanh", "exact": "exact", "erf": "exact", "none": "exact"}
"""What official code calls the GELU of tau attention → ours."""


def read_config(file: epath.PathLike) -> Fields:
    """The fields of a `config.json`.

    Raises:
      UserError: the file is missing or no JSON object.
    """
    path = epath.Path(file)
    if not path.is_file():
        raise UserError(f"no config {path}: --config names a JSON file with the sizes of the model")
    try:
        fields = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path} must hold a JSON object with the sections vision, text and region")
    nested = fields.get("config")
    return nested if isinstance(nested, dict) and "text" not in fields else fields


def has_sizes(fields: Fields) -> bool:
    """Whether a config describes a model; that of the published repository names code and no sizes."""
    return any(isinstance(fields.get(part), dict) and fields[part] for part in ("vision", "text", "region"))


def model_config(fields: Fields) -> ModelConfig:
    """The model a `config.json` describes; no fields at all give the published one.

    Raises:
      UserError: a field has another type, asks for what this model has not, or sizes do not fit together.
    """
    full = moondream3()
    try:
        vision = _vision(_section(fields, "vision"), full.vision, fields.get("vision_early_layer"))
        text = _text(_section(fields, "text"), full.text, fields.get("tau_gelu"))
        region = _region(_section(fields, "region"), full.region)
        refiner = _refiner(_section(fields, "refiner"), full.refiner, fields.get("refiner_iters"))
        _refuse_other_architectures(fields, text)
        paths = _paths(fields, full.paths, vision, text)
        name = str(fields.get("name", full.name))
        return ModelConfig(name=name, vision=vision, text=text, region=region, refiner=refiner, paths=paths)
    except (TypeError, ZeroDivisionError, AttributeError) as error:
        raise UserError(f"config.json: a field has an unusable value ({error})") from error


def refiner_encoder_config(fields: Fields) -> ModelConfig:
    """The same model with the vision encoder that a config names for its refiner (`refiner_vision`).

    Fixtures have one of their own, because the official refiner insists on a grid of 27 x 27 patches.

    Raises:
      UserError: as `model_config`.
    """
    if "refiner_vision" not in fields:
        return model_config(fields)
    early = fields.get("refiner_early_layer")
    # No text is decoded over these features, and a small decoder's context would be too short for them.
    text = {**_section(fields, "text"), "max_context": moondream3().text.context}
    return model_config({**fields, "vision": fields["refiner_vision"], "vision_early_layer": early, "text": text})


def official_fields(config: ModelConfig, naming: str) -> dict[str, Any]:
    """What `config.json` of an exported checkpoint says; `model_config` reads it back without loss.

    Args:
      config: the model.
      naming: of the tensors, md3 or hf.
    """

    def section(ours: Any, names: Mapping[str, str]) -> dict[str, Any]:
        values = dataclasses.asdict(ours)
        return {official: values[field] for official, field in names.items()}

    text, region = config.text, config.region
    moe = section(text, MOE_FIELDS) if text.dense_layers < text.layers else None
    return {
        "name": config.name,
        "weight_naming": naming,
        "vision": {
            **section(config.vision, VISION_FIELDS), "proj_out_dim": text.width, "in_channels": 3,
        },
        "vision_early_layer": config.vision.early_layer,
        "text": {
            **section(text, TEXT_FIELDS), "n_kv_heads": text.heads, "prefix_attn": config.prefix_tokens,
            "group_size": None, "tau_attn": True, "moe": moe,
        },
        "tau_gelu": text.tau_gelu,
        "region": {
            **section(region, REGION_FIELDS), "dim": text.width, "size_out_dim": 2 * region.size_bins,
            "decoder_arch": "linear", "use_ln": region.layer_norm,
        },
        "refiner": {
            **section(config.refiner, REFINER_FIELDS), "enc_dim": config.vision.width,
            "mask_encoder_widths": list(config.refiner.mask_encoder_widths),
        },
        "refiner_iters": config.refiner.iterations,
        "tokens": {
            "bos": config.paths.bos, "eos": config.paths.eos, "coord": config.paths.coord_token,
            "size": config.paths.size_token,
        },
        "paths": dataclasses.asdict(config.paths),
    }  # fmt: skip


def _section(fields: Fields, name: str) -> Fields:
    section = fields.get(name)
    if section is not None and not isinstance(section, dict):
        raise UserError(f"config.json: {name} must be an object with the sizes of that part")
    return section or {}


def _renamed(section: Fields, names: Mapping[str, str], where: str) -> dict[str, Any]:
    """Our fields that a section sets; sizes must be whole numbers, and positive."""
    found = {ours: section[official] for official, ours in names.items() if section.get(official) is not None}
    for official, ours in names.items():
        value = found.get(ours)
        wanted = (int, float) if ours == "rope_theta" else str if ours == "coord_top" else int
        if ours in found and (isinstance(value, bool) or not isinstance(value, wanted)):
            raise UserError(f"config.json: {where}.{official} is {value!r}, not a number this model can use")
        least = 0 if ours in MAY_BE_ZERO else 1
        if isinstance(value, int | float) and value < least:
            raise UserError(f"config.json: {where}.{official} is {value!r}; it must be at least {least}")
    return found


def _vision(section: Fields, full: VisionConfig, early_layer: int | None) -> VisionConfig:
    vision = dataclasses.replace(full, **_renamed(section, VISION_FIELDS, "vision"))
    # The published index would lie outside a shorter encoder.
    default = min(full.early_layer, vision.layers - 1)
    return dataclasses.replace(vision, early_layer=default if early_layer is None else early_layer)


def _text(section: Fields, full: TextConfig, tau_gelu: str | None) -> TextConfig:
    text = dataclasses.replace(full, **_renamed(section, TEXT_FIELDS, "text"))
    if "moe" in section and section["moe"] is None:
        text = dataclasses.replace(text, dense_layers=text.layers)
    else:
        text = dataclasses.replace(text, **_renamed(_section(section, "moe"), MOE_FIELDS, "text.moe"))
    if tau_gelu is None:
        return text
    if tau_gelu not in TAU_GELU:
        raise UserError(f"config.json: tau_gelu is {tau_gelu!r}; known are tanh and exact")
    return dataclasses.replace(text, tau_gelu=TAU_GELU[tau_gelu])  # type: ignore[arg-type]


def _region(section: Fields, full: RegionConfig) -> RegionConfig:
    fields = _renamed(section, REGION_FIELDS, "region")
    outputs = section.get("size_out_dim")
    if outputs is not None:
        if not isinstance(outputs, int) or outputs % 2 or outputs < 1:
            raise UserError(f"config.json: region.size_out_dim is {outputs!r}; it must be even: widths, then heights")
        fields["size_bins"] = outputs // 2
    if fields.get("coord_top", "bins") not in ("bins", "bins-1"):
        raise UserError(f"config.json: region.coord_top is {fields['coord_top']!r}; known are bins-1 and bins")
    return dataclasses.replace(full, **fields, layer_norm=section.get("use_ln", full.layer_norm))


def _refiner(section: Fields, full: RefinerHeadConfig, iterations: int | None) -> RefinerHeadConfig:
    fields = _renamed(section, REFINER_FIELDS, "refiner")
    embed = fields.get("embed", full.embed)
    widths = section.get("mask_encoder_widths") or (embed // 16, embed // 8, embed // 4)
    refiner = dataclasses.replace(
        full, **fields, mask_encoder_widths=tuple(widths), iterations=iterations or full.iterations
    )
    channels, full_groups = (*refiner.mask_encoder_widths, embed), refiner.norm_groups
    groups = (1, full_groups // 4, full_groups // 2, full_groups)
    if len(channels) != len(groups) or any(width < 1 or width % count for width, count in zip(channels, groups)):
        raise UserError(
            f"config.json: refiner.embed_dim {embed} gives the mask encoder {channels} channels, which do not divide "
            f"into {groups} norm groups; set refiner.norm_groups or refiner.mask_encoder_widths"
        )
    # An eighth of the channels is left after upsampling, and four heads look at them.
    if embed % refiner.heads or embed % 32:
        raise UserError(
            f"config.json: refiner.embed_dim is {embed}; it must be a multiple of num_heads ({refiner.heads}) and of 32"
        )
    return refiner


def _paths(fields: Fields, full: PathConfig, vision: VisionConfig, text: TextConfig) -> PathConfig:
    """The path language: our own section where there is one, else the published language within the context."""
    own = _section(fields, "paths")
    if own:
        known = {field.name for field in dataclasses.fields(PathConfig)}
        if own.keys() - known:
            raise UserError(f"config.json: paths has unknown fields: {', '.join(sorted(own.keys() - known))}")
        own = {key: tuple(value) if isinstance(value, list) else value for key, value in own.items()}
        return dataclasses.replace(full, **own)
    tokens = _section(fields, "tokens")
    for name, token in tokens.items():
        if isinstance(token, bool) or not isinstance(token, int):
            raise UserError(f"config.json: tokens.{name} is {token!r}; it must be the id of a token")
    # At least one token each, so that a context too short for the image is refused by the config itself.
    room = max(2, text.context - 1 - vision.grid**2)
    prompt = full.max_prompt_tokens
    if room < full.max_prompt_tokens + full.max_new_tokens:
        prompt = min(prompt, room // 2)
    return dataclasses.replace(
        full, bos=tokens.get("bos", full.bos), eos=tokens.get("eos", full.eos),
        coord_token=tokens.get("coord", full.coord_token), size_token=tokens.get("size", full.size_token),
        max_prompt_tokens=prompt, max_new_tokens=min(full.max_new_tokens, room - prompt), raster=vision.crop,
        prompt_prefix=tuple(token for token in full.prompt_prefix if token < text.vocabulary),
    )  # fmt: skip


def _refuse_other_architectures(fields: Fields, text: TextConfig) -> None:
    vision, region, decoder = (_section(fields, part) for part in ("vision", "region", "text"))
    rules = [
        (decoder.get("n_kv_heads", text.heads) == text.heads, "text.n_kv_heads must equal text.n_heads"),
        (decoder.get("tau_attn", True), "text.tau_attn must be true: Moondream 3 always has tau attention"),
        (vision.get("in_channels", 3) == 3, "vision.in_channels must be 3"),
        (vision.get("proj_out_dim", text.width) == text.width, "vision.proj_out_dim must equal text.dim"),
        (region.get("dim", text.width) == text.width, "region.dim must equal text.dim"),
        (region.get("decoder_arch", "linear") == "linear", "region.decoder_arch must be linear"),
    ]
    broken = [rule for holds, rule in rules if not holds]
    if broken:
        raise UserError(f"config.json describes another architecture: {'; '.join(broken)}")
