"""Model sizes and presets: frozen dataclasses, readable from top to bottom.

`tiny`, `small` and `moondream3` run the same code and differ in numbers only.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from moonseg_jax.errors import UserError

PATH_UNITS = 960
"""Path numbers are integers in a box of 960 units relative to the bounding box, at every size."""


class ConfigError(UserError):
    """A setting that cannot work; the message names the field and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Sizes of the vision encoder and of the tiling of images into crops."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    patch: int
    """Side of a patch in pixels."""
    crop: int
    """Side of a crop in pixels; a multiple of `patch`."""
    max_tiles: int
    """Most local crops an image is cut into; the global crop comes on top."""
    overlap_margin: int
    """Overlap of neighbouring tiles, in patches on each side."""
    projection_width: int
    """Inner width of the MLP that projects features to the text width."""
    early_layer: int
    """Index of the block whose output serves as early features for the refiner. `layers - 1`, the last block before
    the final norm, is what the engine's CUDA path hands to the head instead (specification §13.4)."""

    @property
    def grid(self) -> int:
        """Patches along one side of a crop."""
        return self.crop // self.patch


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Sizes of the text decoder. Blocks `0..dense_layers-1` have dense MLPs, the rest routed experts."""

    width: int
    layers: int
    dense_layers: int
    heads: int
    mlp_width: int
    experts: int
    active_experts: int
    expert_width: int
    vocabulary: int
    context: int
    """Longest sequence (BOS, image and text together)."""
    rope_theta: float = 1.5e6
    tau_gelu: Literal["tanh", "exact"] = "tanh"
    """GELU inside tau attention; official sources disagree, the current engine uses tanh."""

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """Sizes of the coordinate and size heads."""

    coord_features: int
    """Width of the Fourier features of a coordinate (cosines and sines together)."""
    coord_bins: int
    size_features: int
    size_bins: int
    """Bins per axis: the size head has twice as many outputs, width first."""
    layer_norm: bool = True
    """Normalise the hidden row before the heads (absent from checkpoints of 2025)."""
    coord_top: Literal["bins-1", "bins"] = "bins-1"
    """A coordinate is bin / (bins - 1) in the current engine, bin / bins in the Hugging Face code."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinerHeadConfig:
    """Sizes of the refinement head."""

    embed: int
    heads: int
    layers: int
    masks: int
    """Mask candidates per iteration."""
    iterations: int = 5
    mask_encoder_widths: tuple[int, int, int] = (16, 32, 64)
    """Channels of the first three mask-encoder convolutions; the fourth has `embed`."""
    norm_groups: int = 32
    """Groups of the normalisations over `embed` channels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathConfig:
    """The path language: tokens, grammar and budget."""

    tokenizer: str
    """`embedded:tiny` or `embedded:small` (shipped with the package), or the path of a `tokenizers` JSON file."""
    grammar: Literal["polygon", "full"] = "polygon"
    """What may be written: absolute `M`, `L`, `Z`; or all that the official decoder can mean, curves included."""
    allow_no_target: bool = False
    """Whether EOS may be the very first token: the phrase has no target."""
    explicit_lines: bool = False
    """Whether polygons are written with the letter of every line-to; shorter without, and both are read."""
    coordinate_step: int = 1
    """Only every n-th integer of the 960-unit box is used; a divisor of 960."""
    max_prompt_tokens: int
    """Bucket of the prompt, BOS and image excluded."""
    max_new_tokens: int
    """Budget of the completion: box, path and EOS."""
    trace_tolerance: float = 0.5
    """Ramer-Douglas-Peucker tolerance of traced targets, in pixels of the original mask."""
    raster: int
    """Side R of the reward raster: the whole image stretched to R x R."""
    bos: int = 0
    eos: int = 0
    prompt_prefix: tuple[int, ...] = (1, 17374, 2)
    prompt_suffix: tuple[int, ...] = (3,)
    coord_token: int = 5
    size_token: int = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that fixes the shapes of the parameters, and the language they speak."""

    name: str
    vision: VisionConfig
    text: TextConfig
    region: RegionConfig
    refiner: RefinerHeadConfig
    paths: PathConfig

    def __post_init__(self) -> None:
        """Refuses sizes that cannot work together.

        Raises:
          ConfigError: naming the field and the rule it breaks.
        """
        vision, text, paths = self.vision, self.text, self.paths
        rules = [
            (vision.crop % vision.patch == 0, "vision.crop must be a multiple of vision.patch"),
            (vision.grid > 2 * vision.overlap_margin, "vision.overlap_margin must leave a window of patches"),
            (0 <= vision.early_layer < vision.layers, "vision.early_layer must be a block index"),
            (vision.width % vision.heads == 0, "vision.width must be a multiple of vision.heads"),
            (text.width % text.heads == 0, "text.width must be a multiple of text.heads"),
            (
                text.head_width % 4 == 0,
                "the text head width must be a multiple of 4 (half of it rotates in pairs)",
            ),
            (0 <= text.dense_layers <= text.layers, "text.dense_layers must lie in 0..text.layers"),
            (text.active_experts <= text.experts, "text.active_experts must not exceed text.experts"),
            (PATH_UNITS % paths.coordinate_step == 0, f"paths.coordinate_step must divide {PATH_UNITS}"),
            (self.context_needed <= text.context, "text.context is shorter than image + prompt + completion"),
        ]
        for holds, rule in rules:
            if not holds:
                raise ConfigError(f"model config {self.name!r}: {rule}")

    @property
    def prefix_tokens(self) -> int:
        """Length of the BOS + image prefix."""
        return 1 + self.vision.grid**2

    @property
    def context_needed(self) -> int:
        """Longest sequence this config can produce."""
        return self.prefix_tokens + self.paths.max_prompt_tokens + self.paths.max_new_tokens


def tiny() -> ModelConfig:
    """About a million parameters: 96-pixel crops, routed experts included; trains on a laptop."""
    return ModelConfig(
        name="tiny",
        vision=VisionConfig(
            width=96, layers=3, heads=4, mlp_width=256, patch=12, crop=96, max_tiles=4, overlap_margin=1,
            projection_width=192, early_layer=0,
        ),
        text=TextConfig(
            width=96, layers=4, dense_layers=1, heads=4, mlp_width=256, experts=4, active_experts=2,
            expert_width=64, vocabulary=320, context=256,
        ),
        region=RegionConfig(coord_features=32, coord_bins=64, size_features=64, size_bins=128),
        refiner=RefinerHeadConfig(
            embed=96, heads=4, layers=2, masks=4, iterations=5, mask_encoder_widths=(8, 16, 32), norm_groups=8,
        ),
        paths=PathConfig(
            tokenizer="embedded:tiny", coordinate_step=30, max_prompt_tokens=16, max_new_tokens=44,
            trace_tolerance=1.0, raster=96, prompt_prefix=(1, 21, 2),
        ),
    )  # fmt: skip


def small() -> ModelConfig:
    """About 60 million parameters: for a workstation GPU."""
    return ModelConfig(
        name="small",
        vision=VisionConfig(
            width=384, layers=10, heads=6, mlp_width=1536, patch=14, crop=224, max_tiles=6, overlap_margin=2,
            projection_width=1024, early_layer=3,
        ),
        text=TextConfig(
            width=512, layers=8, dense_layers=2, heads=8, mlp_width=2048, experts=8, active_experts=2,
            expert_width=384, vocabulary=2048, context=1024,
        ),
        region=RegionConfig(coord_features=128, coord_bins=512, size_features=256, size_bins=512),
        refiner=RefinerHeadConfig(embed=128, heads=8, layers=2, masks=4, norm_groups=32),
        paths=PathConfig(
            tokenizer="embedded:small", coordinate_step=5, max_prompt_tokens=32, max_new_tokens=320,
            raster=224, prompt_prefix=(1, 21, 2),
        ),
    )  # fmt: skip


def moondream3() -> ModelConfig:
    """The published sizes: 9.27 billion parameters, 2.2 billion active per text token."""
    return ModelConfig(
        name="moondream3",
        vision=VisionConfig(
            width=1152, layers=27, heads=16, mlp_width=4304, patch=14, crop=378, max_tiles=12, overlap_margin=4,
            projection_width=8192, early_layer=8,
        ),
        text=TextConfig(
            width=2048, layers=24, dense_layers=4, heads=32, mlp_width=8192, experts=64, active_experts=8,
            expert_width=1024, vocabulary=51200, context=32768,
        ),
        region=RegionConfig(coord_features=256, coord_bins=1024, size_features=512, size_bins=1024),
        refiner=RefinerHeadConfig(embed=256, heads=8, layers=2, masks=4),
        paths=PathConfig(
            tokenizer="starmie-v1.json", max_prompt_tokens=64, max_new_tokens=768, raster=378,
        ),
    )  # fmt: skip


PRESETS = {"tiny": tiny, "small": small, "moondream3": moondream3}
