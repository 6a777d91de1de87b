"""Names of the refinement head: the state dict of the official SegHeadRefiner and our parameters.

Source of the names: moondream3 specification §2 (refiner file) and §12 (what each part does).
"""

from __future__ import annotations

from collections.abc import Iterator

from moonseg_jax.config import RefinerHeadConfig
from moonseg_jax.convert.layouts import Layout
from moonseg_jax.convert.names import Path, Place

DOUBLINGS = 3
"""How often the official head doubles the grid."""
_UPSAMPLE_STRIDE = 6
"""Modules per doubling in the official `upsample` sequence: convolution, norm, GELU, twice."""
_NORMS = {"norm1": "norm_self", "norm2": "norm_image", "norm3": "norm_mlp", "norm4": "norm_back"}
_ATTENTIONS = {
    "output_self_attn": "self_attention",
    "cross_attn_token_to_image": "token_to_image",
    "cross_attn_image_to_token": "image_to_token",
}


def _leaf(name: str, path: Path, layout: Layout = Layout.SAME, layer: int | None = None) -> Place:
    return Place(name=name, paths=(path,), layer=layer, layout=layout)


def _linear(name: str, path: Path, layout: Layout = Layout.TRANSPOSED, layer: int | None = None) -> Iterator[Place]:
    yield _leaf(f"{name}.weight", (*path, "kernel"), layout, layer)
    yield _leaf(f"{name}.bias", (*path, "bias"), layer=layer)


def _norm(name: str, path: Path, layer: int | None = None) -> Iterator[Place]:
    yield _leaf(f"{name}.weight", (*path, "scale"), layer=layer)
    yield _leaf(f"{name}.bias", (*path, "bias"), layer=layer)


def _mlp(name: str, path: Path, indices: tuple[int, ...], layer: int | None = None) -> Iterator[Place]:
    for ours, index in enumerate(indices):
        yield from _linear(f"{name}.{index}", (*path, f"dense_{ours}"), layer=layer)


def _attention(name: str, path: Path, layer: int | None = None) -> Iterator[Place]:
    for official, ours, layout in (
        ("in_proj_weight", "kernel", Layout.TRANSPOSED),
        ("in_proj_bias", "bias", Layout.SAME),
    ):
        paths = tuple((*path, part, ours) for part in ("query", "key", "value"))
        yield Place(name=f"{name}.{official}", paths=paths, layer=layer, layout=layout)
    yield from _linear(f"{name}.out_proj", (*path, "out"), layer=layer)


def _block(number: int) -> Iterator[Place]:
    name = f"transformer_blocks.{number}"
    for official, ours in _ATTENTIONS.items():
        yield from _attention(f"{name}.{official}", ("blocks", ours), number)
    yield from _mlp(f"{name}.mlp", ("blocks", "mlp"), (0, 2), number)
    for official, ours in _NORMS.items():
        yield from _norm(f"{name}.{official}", ("blocks", ours), number)


def _upsampler() -> Iterator[Place]:
    for step in range(DOUBLINGS):
        first = _UPSAMPLE_STRIDE * step
        yield _leaf(f"upsample.{first}.weight", ("upsampler", f"double_{step}", "kernel"), Layout.DOUBLING)
        yield _leaf(f"upsample.{first}.bias", ("upsampler", f"double_{step}_bias"))
        yield from _norm(f"upsample.{first + 1}.norm", ("upsampler", f"norm_double_{step}"))
        yield from _linear(f"upsample.{first + 3}", ("upsampler", f"conv_{step}"), Layout.CONVOLUTION)
        yield from _norm(f"upsample.{first + 4}.norm", ("upsampler", f"norm_conv_{step}"))


def refiner_places(config: RefinerHeadConfig) -> Iterator[Place]:
    """Every tensor of the official state dict of a refinement head.

    Args:
      config: how many two-way blocks and mask candidates.
    """
    yield _leaf("image_pe", ("image_positions",), Layout.IMAGE)
    yield _leaf("mask_tokens", ("mask_tokens",))
    yield _leaf("iou_token", ("iou_token",))
    yield _leaf("output_pe", ("token_positions",))
    yield from _linear("image_proj", ("image_projection",), Layout.POINTWISE)
    yield from _linear("hq_fusion.early_proj.0", ("early_projection",))
    yield from _norm("hq_fusion.early_proj.1", ("early_norm",))
    yield from _linear("hq_fusion.fusion.0", ("fusion_reduce",), Layout.POINTWISE)
    yield from _norm("hq_fusion.fusion.1", ("fusion_reduce_norm",))
    yield from _linear("hq_fusion.fusion.3", ("fusion_mix",), Layout.CONVOLUTION)
    yield from _norm("hq_fusion.fusion.4", ("fusion_mix_norm",))
    for index in range(len(config.mask_encoder_widths) + 1):
        yield from _linear(f"mask_encoder.conv{index + 1}.0", ("mask_encoder", f"conv_{index}"), Layout.CONVOLUTION)
        yield from _norm(f"mask_encoder.conv{index + 1}.1", ("mask_encoder", f"norm_{index}"))
    for number in range(config.layers):
        yield from _block(number)
    yield from _attention("final_token_to_image", ("final_attention",))
    yield from _norm("final_norm", ("final_norm",))
    yield from _upsampler()
    yield from _linear("final_q_proj", ("mask_query",))
    yield from _norm("final_norm_up", ("mask_query_norm",))
    yield from _attention("final_attn_up", ("mask_attention",))
    for mask in range(config.masks):
        yield from _mlp(f"mask_mlps.{mask}", ("mask_mlps",), (0, 2, 4), mask)
    yield from _mlp("iou_head", ("iou_mlp",), (0, 2, 4))
