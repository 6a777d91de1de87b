"""What a fixture expects of the refinement head, and of the refiner from a coarse mask to the cleaned one."""

import functools
from typing import Any

import jax
import numpy as np
from fixture_model import Fixture
from fixture_policy import QUICK

from moonseg_jax.config import ModelConfig
from moonseg_jax.mask_cleaning import clean_mask
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.refiner import make_head
from moonseg_jax.refine import cut, encode_and_refine, paste, pixel_rectangle, to_rectangle

Arrays = dict[str, np.ndarray]
refine = jax.jit(encode_and_refine, static_argnums=(0, 1), compiler_options=QUICK)


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def one_call(config: ModelConfig, params: Any, final: Any, early: Any, mask: Any) -> Any:
    """One call of the head, with what every module gave."""
    return make_head(config).apply(
        {"params": params}, final, early, mask, mutable=["intermediates"],
        capture_intermediates=lambda _, method: method in ("__call__", "fuse"),
    )  # fmt: skip


def head(fixture: Fixture) -> Arrays:
    """One call on given features and a mask that is not square."""
    inputs, config = fixture.inputs, fixture.refiner_config
    features = (inputs["head/final_features"], inputs["head/early_features"])
    (logits, iou), seen = one_call(config, fixture.head_params, *features, inputs["head/mask"][:, 0])
    inner = seen["intermediates"]
    grid = config.vision.grid
    fused = inner["fuse"][0]
    tokens, image = (stack[-1] for stack in inner["blocks"]["__call__"][0][0])
    channels_first = {
        "mask_embed_sub": inner["mask_encoder"]["__call__"][0][:, ::3, ::3],
        "fused_sub": fused[:, ::3, ::3],
        "image_proj_sub": inner["image_projection"]["__call__"][0].reshape(1, grid, grid, -1)[:, ::3, ::3],
        "up_sub": inner["upsampler"]["__call__"][0][:, ::8, ::8],
    }
    outputs = {
        "logits": logits,
        "iou": iou,
        **{name: np.moveaxis(np.asarray(value), -1, 1) for name, value in channels_first.items()},
        "out_tokens": tokens,
        "img_tokens_sub": image[:, ::9],
        "final_tokens": inner["final_norm"]["__call__"][0],
        "attn_up": inner["mask_attention"]["__call__"][0],
    }
    return {f"head/{name}": np.asarray(value) for name, value in outputs.items()}


def pipeline(fixture: Fixture) -> Arrays:
    """From the coarse mask to the cleaned one, step by step as `Refiner` takes them."""
    config, case = fixture.refiner_config, fixture.sizes["refiner_case"]
    image, coarse = fixture.inputs["pipe/image"], fixture.inputs["pipe/coarse_mask"].astype(bool)
    rectangle = pixel_rectangle(box_of(case["bbox"]), *coarse.shape)
    crop, mask = cut(image, coarse, rectangle, config.vision.crop)
    final, early, refined = refine(
        Moondream(config), make_head(config), fixture.refiner_params, fixture.head_params, crop[None], mask[None]
    )
    probability = np.asarray(refined.masks[-1, 0])
    inside = to_rectangle(probability, rectangle)
    pasted = paste(inside > 0.5, rectangle, coarse.shape)
    outputs = {
        "crop_xyxy": np.array(rectangle),
        "img378_sub": crop[::9, ::9],
        "mask378_packed": np.packbits(mask.astype(bool)),
        "final_features_every3": final[0, ::3],
        "early_features_every3": early[0, ::3],
        "iou": refined.iou[:, 0],
        "best_idx": refined.best[:, 0],
        "logits_sub": refined.logits[:, 0, :, ::14, ::14],
        "prob_sub": probability[::6, ::6],
        "prob_crop": inside,
        "refined_crop": inside > 0.5,
        "pasted": pasted,
        "cleaned": clean_mask(pasted),
    }
    return {f"pipe/{name}": np.asarray(value) for name, value in outputs.items()}


def box_of(corners: dict[str, float]) -> np.ndarray:
    """cx, cy, w, h of x_min, y_min, x_max, y_max."""
    x0, y0, x1, y1 = (corners[name] for name in ("x_min", "y_min", "x_max", "y_max"))
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
