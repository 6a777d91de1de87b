"""An exported refiner ready for batches of crops: what refinement is measured against."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from experiments.pytorch_inference import Moondream, RefinementHead, Weights, load_checkpoint
from moonseg_jax.errors import UserError


class FusingHead(RefinementHead):
    """The reader's head, with the part that does not see the mask computed once for all iterations."""

    def fuse(self, final: Float[Tensor, "N gg W"], early: Float[Tensor, "N gg W"]) -> Float[Tensor, "N E g g"]:
        """What the head makes of the features alone."""
        fusion, grid = self.w.under("hq_fusion"), (math.isqrt(final.shape[1]),) * 2
        soon = F.gelu(fusion.norm("early_proj.1", fusion.linear("early_proj.0", early)))
        x = fusion.linear("fusion.0", torch.cat([soon, self.w.linear("image_proj", final)], dim=-1))
        x = fusion.grouped("fusion.1", x.transpose(1, 2).unflatten(2, grid), self.groups[-1])
        return fusion.grouped("fusion.4", fusion.conv("fusion.3", x), self.groups[-1])

    def _image_code(self, final: Tensor, early: Tensor, mask: Tensor) -> Tensor:
        """The reader's method, given what `fuse` gave as `final`; `early` is in it."""
        for number, groups in enumerate(self.groups, start=1):
            stage = self.w.under(f"mask_encoder.conv{number}")
            mask = stage.grouped("1", stage.conv("0", mask, stride=2), groups)
        return final + F.interpolate(mask, final.shape[-2:], mode="bilinear")


class TorchRefiner:
    """Vision encoder and head of an exported checkpoint, for batches."""

    def __init__(self, config: dict[str, Any], policy: Weights, head: Weights):
        """Takes what the reader's `load_checkpoint` gives."""
        self.encoder, self.head = Moondream(config, policy), FusingHead(config, head)
        self.iterations = int(config["refiner_iters"])

    @classmethod
    def load(cls, folder: Path) -> TorchRefiner:
        """Reads a folder written by `moonseg export --refiner`, in float32.

        Raises:
          UserError: the folder holds no exported checkpoint, or one without a refiner.
        """
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no exported checkpoint (config.json is missing); run `moonseg export`")
        config, policy, head = load_checkpoint(folder, torch.float32, "cpu")
        if head is None:
            raise UserError(f"{folder} holds no refiner weights; run `moonseg export --refiner`")
        return cls(config, policy, head)

    @torch.inference_mode()
    def refine(
        self, crops: UInt8[np.ndarray, "N S S 3"], coarse: Float[np.ndarray, "N S S"]
    ) -> tuple[Float[np.ndarray, "N S S"], Float[np.ndarray, " N"]]:
        """Probabilities of the best masks after all iterations, and their predicted IoU.

        Args:
          crops: pixels around the objects.
          coarse: masks to start from, 0 or 1 in the crops' frame.
        """
        fused = self.head.fuse(*self.encoder.encode_crops(crops))
        mask, rows = torch.as_tensor(coarse)[:, None], torch.arange(len(crops))
        for _ in range(self.iterations):
            logits, iou = self.head(fused, fused, mask)
            mask = logits[rows, iou.argmax(dim=1)].sigmoid()[:, None]
        return mask[:, 0].numpy(), iou.amax(dim=1).numpy()
