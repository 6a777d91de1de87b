"""One table: official name (md3 and Hugging Face), where the tensor lies in our parameters, and what changes.

Source of the names: moondream3 specification §2. `{n}` is the number of the block, counted over the whole part
as in the official names; our dense and routed text blocks are two stacks, each counted from zero.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator

from moonseg_jax.config import ModelConfig
from moonseg_jax.convert.layouts import Layout

Path = tuple[str, ...]


class Naming(enum.Enum):
    """The spellings of an official checkpoint."""

    MD3 = "md3"
    """`text_model.…`, `vision_encoder.…`, `region_model.…`."""
    HF = "hf"
    """`model.text.…`, `model.vision.…`, `model.region.…`."""


class Stack(enum.Enum):
    """Layers of one kind, stacked in one leaf."""

    VISION = ("vision", "blocks")
    DENSE = ("text", "dense")
    ROUTED = ("text", "routed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a tensor, or one per block of a stack."""

    path: Path
    """Of our leaf, from the root of the parameters."""
    md3: str
    hf: str
    stack: Stack | None = None
    layout: Layout = Layout.SAME
    hf_layout: Layout | None = None
    """Where it differs from the md3 layout."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where one official tensor lies: the leaves that hold its equal parts along the first axis."""

    name: str
    """Official name."""
    paths: tuple[Path, ...]
    layer: int | None
    """Row of a stacked leaf; None where the leaf is not stacked."""
    layout: Layout


_MD3_VISION = "vision_encoder.encoder.model.visual."
_MD3_TEXT = "text_model.transformer."


def _linear(path: Path, md3: str, hf: str, stack: Stack | None = None) -> list[Row]:
    return [
        Row(path=(*path, "kernel"), md3=f"{md3}.weight", hf=f"{hf}.weight", stack=stack, layout=Layout.TRANSPOSED),
        Row(path=(*path, "bias"), md3=f"{md3}.bias", hf=f"{hf}.bias", stack=stack),
    ]


def _norm(path: Path, md3: str, hf: str, stack: Stack | None = None) -> list[Row]:
    return [
        Row(path=(*path, "scale"), md3=f"{md3}.weight", hf=f"{hf}.weight", stack=stack),
        Row(path=(*path, "bias"), md3=f"{md3}.bias", hf=f"{hf}.bias", stack=stack),
    ]


def _vision() -> list[Row]:
    md3, hf = f"{_MD3_VISION}blocks.{{n}}.", "model.vision.blocks.{n}."
    at, stack = Stack.VISION.value, Stack.VISION
    return [
        *_linear(("vision", "patch_embedding"), f"{_MD3_VISION}patch_embed.linear", "model.vision.patch_emb"),
        Row(
            path=("vision", "position"), md3=f"{_MD3_VISION}pos_embed", hf="model.vision.pos_emb",
            layout=Layout.LEADING_ONE,
        ),
        *_norm((*at, "ln1"), f"{md3}norm1", f"{hf}ln1", stack),
        *_norm((*at, "ln2"), f"{md3}norm2", f"{hf}ln2", stack),
        *_linear((*at, "qkv"), f"{md3}attn.qkv", f"{hf}attn.qkv", stack),
        *_linear((*at, "proj"), f"{md3}attn.proj", f"{hf}attn.proj", stack),
        *_linear((*at, "fc1"), f"{md3}mlp.fc1", f"{hf}mlp.fc1", stack),
        *_linear((*at, "fc2"), f"{md3}mlp.fc2", f"{hf}mlp.fc2", stack),
        *_norm(("vision", "post_ln"), f"{_MD3_VISION}norm", "model.vision.post_ln"),
        *_linear(("vision", "projection_fc1"), "vision_encoder.projection.mlp.fc1", "model.vision.proj_mlp.fc1"),
        *_linear(("vision", "projection_fc2"), "vision_encoder.projection.mlp.fc2", "model.vision.proj_mlp.fc2"),
    ]  # fmt: skip


def _block(stack: Stack) -> list[Row]:
    md3, hf, at = f"{_MD3_TEXT}h.{{n}}.", "model.text.blocks.{n}.", stack.value
    rows = [
        *_norm((*at, "ln"), f"{md3}ln", f"{hf}ln", stack),
        *_linear((*at, "attn", "qkv"), f"{md3}mixer.Wqkv", f"{hf}attn.qkv", stack),
        *_linear((*at, "attn", "proj"), f"{md3}mixer.out_proj", f"{hf}attn.proj", stack),
    ]
    for ours, official, layout in (
        ("tau_q", "wq", Layout.TRANSPOSED), ("tau_v", "wv", Layout.TRANSPOSED), ("tau_alpha", "alpha", Layout.SAME)
    ):  # fmt: skip
        rows.append(
            Row(
                path=(*at, "attn", ours), md3=f"{md3}tau_{official}", hf=f"{hf}attn.tau.{official}", stack=stack,
                layout=layout,
            )
        )  # fmt: skip
    if stack is Stack.DENSE:
        rows += _linear((*at, "mlp", "fc1"), f"{md3}mlp.fc1", f"{hf}mlp.fc1", stack)
        return rows + _linear((*at, "mlp", "fc2"), f"{md3}mlp.fc2", f"{hf}mlp.fc2", stack)
    rows += _linear((*at, "moe", "router"), f"{md3}gate", f"{hf}mlp.router", stack)
    for ours, official, hf_name in (("up", "experts", "fc1"), ("down", "output_experts", "fc2")):
        rows.append(
            Row(
                path=(*at, "moe", ours), md3=f"{md3}mlp.{official}.weight", hf=f"{hf}mlp.{hf_name}.weight", stack=stack,
                layout=Layout.TRANSPOSED,
            )
        )  # fmt: skip
    return rows


def _text() -> list[Row]:
    return [
        Row(path=("text", "embedding", "embedding"), md3=f"{_MD3_TEXT}embd.wte.weight", hf="model.text.wte"),
        *_block(Stack.DENSE),
        *_block(Stack.ROUTED),
        *_norm(("text", "post_ln"), "text_model.lm_head.ln", "model.text.post_ln"),
        *_linear(("text", "head"), "text_model.lm_head.linear", "model.text.lm_head"),
    ]


def _region() -> list[Row]:
    rows = []
    for ours, md3, hf in (("coord", "coordinate", "coord"), ("size", "size", "size")):
        # The md3 modules keep the Fourier matrix as the kernel of a linear layer, the HF ones as it is multiplied.
        rows.append(
            Row(
                path=("region", f"{ours}_frequencies"), md3=f"region_model.{md3}_features.weight",
                hf=f"model.region.{hf}_features", layout=Layout.TRANSPOSED, hf_layout=Layout.SAME,
            )
        )  # fmt: skip
        rows += _linear(("region", f"{ours}_encoder"), f"region_model.{md3}_encoder", f"model.region.{hf}_encoder")
        rows += _linear(("region", f"{ours}_decoder"), f"region_model.{md3}_head", f"model.region.{hf}_decoder")
    return rows + _norm(REGION_NORM, "region_model.ln", "model.region.ln")


REGION_NORM: Path = ("region", "ln")
"""The one part of the model that some official checkpoints lack."""
TABLE = (*_vision(), *_text(), *_region())
"""Every tensor of the policy."""


def block_numbers(stack: Stack, config: ModelConfig) -> range:
    """Official numbers of the blocks of a stack."""
    text = config.text
    return {
        Stack.VISION: range(config.vision.layers),
        Stack.DENSE: range(text.dense_layers),
        Stack.ROUTED: range(text.dense_layers, text.layers),
    }[stack]


def policy_places(config: ModelConfig, naming: Naming) -> Iterator[Place]:
    """Every official tensor of a policy, in the order of the table.

    Args:
      config: how many blocks, and whether the region heads have a LayerNorm.
      naming: of the names.
    """
    for row in TABLE:
        if row.path[:2] == REGION_NORM and not config.region.layer_norm:
            continue
        name, layout = (row.md3, row.layout) if naming is Naming.MD3 else (row.hf, row.hf_layout or row.layout)
        if row.stack is None:
            yield Place(name=name, paths=(row.path,), layer=None, layout=layout)
            continue
        for layer, number in enumerate(block_numbers(row.stack, config)):
            yield Place(name=name.format(n=number), paths=(row.path,), layer=layer, layout=layout)
