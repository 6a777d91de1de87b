"""The values that pass between rooms; every field with its shape and unit.

Letters: I images, K phrases per image, C crops per image, N = I*K rows, P prompt tokens, T completion tokens,
E edges, R side of the reward raster, S side of a crop in pixels, g patches along a crop.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

FINISH_CLOSED, FINISH_BUDGET, FINISH_INVALID = 0, 1, 2
"""Finish reasons of a rollout: properly closed by EOS; out of budget; a token that the grammar forbids was drawn
(only where the grammar is not enforced)."""

SAMPLED, INJECTED = 0, 1
"""Sources of a completion: drawn from the policy; a given path, put beside the group with certainty."""

SumAndCount = tuple[Float[Array, ""], Float[Array, ""]]
"""A loss or figure on its way to a mean: divided once, at the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One image with one phrase, on the host."""

    image: np.ndarray
    """uint8[H, W, 3], RGB."""
    phrase: str
    target: dict[str, Any] | None
    """COCO run-length encoding of the ground truth at the image's size; None for a phrase without target."""
    image_id: int
    example_id: int
    """Unique within its data set; names the prompt in rollouts and records."""
    references: tuple[tuple[float, ...], ...] = ()
    """Spatial references in units of the image: (x, y) points or (cx, cy, w, h) boxes."""
    tags: tuple[str, ...] = ()
    """What the phrase needs (colour, size, order, …): for breakdowns only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """One image with several phrases: the unit a loader yields, so that the image is encoded once."""

    examples: tuple[Example, ...]


@flax.struct.dataclass
class PromptBatch:
    """Images and prompts, on device. Rows of one image are consecutive when flattened to N."""

    crops: UInt8[Array, "I C S S 3"]
    """Crop 0 is the whole image; the tiles follow row-major; unused crops are zero."""
    stitch_rows: Float[Array, "I C g g"]
    """Stitching and pooling weights along rows: output row k takes `stitch_rows[c, k, a]` of row a of crop c."""
    stitch_cols: Float[Array, "I C g g"]
    """The same along columns; the weight of a patch is the product."""
    prompt_ids: Int[Array, "I K P"]
    """Prompt tokens after BOS and image, padded at the end."""
    prompt_values: Float[Array, "I K P 2"]
    """Coordinates (first entry) and sizes (w, h) of spatial references, in units of the image."""
    prompt_lengths: Int[Array, "I K"]
    ground_truth: Bool[Array, "I K R R"]
    """Ground truth at the reward raster (the whole image stretched to R x R)."""
    example_ids: Int[Array, "I K"]
    valid: Bool[Array, "I K"]
    """False for padding rows; they count nowhere."""


@flax.struct.dataclass
class TargetBatch:
    """Traced targets of supervised learning: box, path and EOS as tokens."""

    token_ids: Int[Array, "I K T"]
    bins: Int[Array, "I K T 2"]
    """Coordinate bin in the first entry, (width, height) bins of a size; 0 elsewhere."""
    lengths: Int[Array, "I K"]
    """Tokens including EOS; 0 for padding rows."""


@flax.struct.dataclass
class EdgeBatch:
    """Directed straight edges, what the raster draws."""

    points: Float[Array, "N E 2 2"]
    """Start and end, (x, y) each, in units of the image."""
    valid: Bool[Array, "N E"]
    subpath: Int[Array, "N E"]
    """Number of the subpath an edge belongs to, from 0."""


@flax.struct.dataclass
class Routing:
    """Experts chosen in the three passes over a sequence, per routed layer, for replay.

    L routed layers, p image patches, k experts a token; N = I*K prompts, G samples of each.
    """

    image: Int[Array, "L I p+1 k"]
    """Of BOS and image patches."""
    prompt: Int[Array, "L N P k"]
    completion: Int[Array, "L N*G T k"]


@flax.struct.dataclass
class Rollouts:
    """Sampled or injected completions. Lengths are carried: id 0 is BOS, EOS and pad-like at once."""

    token_ids: Int[Array, "N T"]
    bins: Int[Array, "N T 2"]
    log_probs: Float[Array, "N T"]
    """Log-probability of each token (bins included) under mask and temperature; 0 past the length."""
    lengths: Int[Array, " N"]
    """Tokens, EOS included; 0 where there was no prompt to complete."""
    budgets: Int[Array, " N"]
    """Most tokens each may have, EOS included: the mask keeps room for a proper end within it."""
    finish: Int[Array, " N"]
    """One of the finish reasons above."""
    experts: Routing | None
    """Experts chosen, for replay; None where not recorded."""
    source: Int[Array, " N"] | None = None
    """`SAMPLED` or `INJECTED`; None: all were sampled. The log-probability of an injected token is 0, that of a
    behaviour without choice."""


@flax.struct.dataclass
class Scored:
    """Rollouts judged against their ground truth."""

    iou: Float[Array, " N"]
    """Raw mask IoU at the reward raster; group filtering looks at this and nothing else."""
    reward: Float[Array, " N"]
    """Shaped reward, what the policy is paid."""
    terms: dict[str, Float[Array, " N"]] = flax.struct.field(default_factory=dict)
    """Reward terms before weighting, by label: all of the reward's, and what is logged in any case."""
    token_reward: Float[Array, "N T"] | None = None
    """Shaped reward earned at each token: over the completion it sums to `reward`. None where whole paths are
    credited."""


@flax.struct.dataclass
class CoarsePairs:
    """What the refiner learns from: a rollout's coarse outline and the ground truth of the same object.

    Pixels and the ground truth are cropped from the example when a batch is made, so pairs stay small.
    """

    example_ids: Int[Array, " N"]
    crops: Float[Array, "N 4"]
    """Crop rectangle x0, y0, x1, y1 in units of the image: the predicted box grown by 25 % per side."""
    coarse: UInt8[Array, "N bytes"]
    """Coarse mask drawn in the crop's frame at S x S (S the side of a vision crop), bits packed row-major."""
    iou: Float[Array, " N"]
    policy_version: Int[Array, " N"]
