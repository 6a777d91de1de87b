"""The official outputs of what surrounds the model: text, boxes, images and masks."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from moonseg_jax.config import PathConfig, VisionConfig
from moonseg_jax.paths.vocabulary import Vocabulary

Records = dict[str, Any]
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HelpersFixture:
    """Recorded cases; of the recorded results only those that say what a case is about are read."""

    recorded: Records
    inputs: Arrays
    vocabulary: Vocabulary


def load_helpers(folder: pathlib.Path) -> HelpersFixture:
    """Reads `helpers.json`, `inputs.npz` and `helper_tokenizer.json` of a folder."""
    tokenizer = str(folder / "helper_tokenizer.json")
    with np.load(folder / "inputs.npz") as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    return HelpersFixture(
        recorded=json.loads((folder / "helpers.json").read_text()),
        inputs=inputs,
        vocabulary=Vocabulary.from_config(
            PathConfig(tokenizer=tokenizer, max_prompt_tokens=64, max_new_tokens=768, raster=378)
        ),
    )


def tiling_sizes(*, crop: int, patch: int, margin: int, max_tiles: int) -> VisionConfig:
    """A vision config for tiling; its widths mean nothing."""
    return VisionConfig(
        crop=crop, patch=patch, overlap_margin=margin, max_tiles=max_tiles,
        width=64, layers=1, heads=1, mlp_width=64, projection_width=64, early_layer=0,
    )  # fmt: skip
