"""An exported policy ready for batches: images, prompts and region heads. Letters: P prompts, B rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from experiments.pytorch_inference import Moondream, load_checkpoint
from moonseg_jax.bench.torch_peer.decoder import BatchedDecoder
from moonseg_jax.bench.torch_peer.grammar_tables import GrammarTables, draw
from moonseg_jax.errors import UserError
from moonseg_jax.paths.grammar import Grammar

CROPS_AT_ONCE = 32
"""Crops that the vision encoder takes in one pass, or those of one image where it has more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CroppedImage:
    """What the vision encoder sees of one image."""

    crops: UInt8[np.ndarray, "crops S S 3"]
    """The whole image, then its tiles row-major; the whole image alone will do where it is the only tile."""
    tiling: tuple[int, int]
    """Rows and columns of tiles."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt after BOS and image."""

    image: int
    """Index of its image."""
    token_ids: Sequence[int]
    values: Sequence[Sequence[float]] | None = None
    """Per token, the coordinate and 0, or the width and height, of a spatial reference; None where there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefilled:
    """A batch ready to decode."""

    hidden: Float[Tensor, "B D"]
    """Row of the last prompt token."""
    positions: Int[Tensor, " B"]
    """Of the first completion token in its sequence."""
    start: int
    """Its slot: the same for all rows."""
    mask: Float[Tensor, "B 1 1 slots"] | None
    """-inf at the padding of shorter prompts; None where all have one length."""


class TorchPolicy:
    """An exported policy that decodes batches under a grammar."""

    def __init__(self, reader: Moondream, grammar: Grammar):
        self.reader, self.decoder = reader, BatchedDecoder(reader)
        self.grammar = GrammarTables(grammar, reader.device)
        region = reader.config["region"]
        self.coord_top = region["coord_out_dim"] - (region.get("coord_top", "bins-1") == "bins-1")
        self._cache = self.decoder.new_cache(0, 0)

    @classmethod
    def load(
        cls,
        folder: Path,
        grammar: Grammar,
        *,
        dtype: Literal["float32", "bfloat16"] = "float32",
        device: str = "cpu",
    ) -> TorchPolicy:
        """Reads a folder written by `moonseg export`.

        Args:
          folder: the checkpoint under official names.
          grammar: of the policy that was exported.
          dtype: of weights and activations; logits are float32.
          device: PyTorch's name of it.

        Raises:
          UserError: the folder holds no exported checkpoint.
        """
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no exported checkpoint (config.json is missing); run `moonseg export`")
        config, weights, _ = load_checkpoint(folder, getattr(torch, dtype), device)
        return cls(Moondream(config, weights), grammar)

    def cache(self, rows: int, slots: int) -> Float[Tensor, "L 2 B H slots d"]:
        """Keys and values of a batch, kept for the next one of the same size.

        Raises:
          UserError: more slots than the model has positions.
        """
        if slots > len(self.decoder.cosine):
            raise UserError(
                f"image, prompt and budget make {slots} tokens, but text.max_context is {len(self.decoder.cosine)}; "
                "lower the budgets"
            )
        if self._cache.shape[2:5:2] != (rows, slots):
            self._cache = self.decoder.new_cache(rows, slots)
        return self._cache

    def encode(self, images: Sequence[CroppedImage]) -> Float[Tensor, "images g*g D"]:
        """Embeddings of images, several in one pass of the encoder."""
        embedded: list[Tensor] = []
        for together in _chunks([_distinct_crops(image) for image in images]):
            final, _ = self.reader.encode_crops(np.concatenate(together))
            for features in final.split([len(crops) for crops in together]):
                # A single crop is the whole image and its only tile.
                stacked = features.repeat(2, 1, 1) if len(features) == 1 else features
                embedded.append(self.reader.stitch(stacked, images[len(embedded)].tiling))
        return torch.stack(embedded)

    def prefill(
        self,
        images: Float[Tensor, "images g*g D"],
        prompts: Sequence[Prompt],
        group: int,
        cache: Float[Tensor, "L 2 B H slots d"],
    ) -> Prefilled:
        """Runs every image's prefix and every prompt once and copies their keys and values to the group.

        Args:
          images: embeddings of all images.
          prompts: of the batch.
          group: samples per prompt.
          cache: takes the keys and values; one row per sample.
        """
        used, image_of_prompt = np.unique([prompt.image for prompt in prompts], return_inverse=True)
        prefix, longest = 1 + images.shape[1], max(len(prompt.token_ids) for prompt in prompts)
        bos = self.reader.embed([self.reader.bos], [(0.0, 0.0)]).expand(len(used), 1, -1)
        of_images = self.decoder.new_cache(len(used), prefix)
        places = torch.arange(prefix + longest, device=images.device)
        self.decoder(torch.cat([bos, images[used]], dim=1), of_images, 0, places[None, :prefix], None)
        of_prompts = self.decoder.new_cache(len(prompts), prefix + longest)
        of_prompts[..., :prefix, :] = of_images[:, :, torch.as_tensor(image_of_prompt, device=images.device)]
        unseen = places > places[prefix:, None]
        mask = torch.zeros_like(unseen, dtype=self.decoder.dtype).masked_fill_(unseen, -torch.inf)[None, None]
        rows = self.decoder(self._embed_padded(prompts, longest), of_prompts, prefix, places[None, prefix:], mask)
        lengths = torch.tensor([len(prompt.token_ids) for prompt in prompts], device=images.device)
        cache[..., : prefix + longest, :] = of_prompts.repeat_interleave(group, dim=2)
        return Prefilled(
            hidden=rows[torch.arange(len(prompts)), lengths - 1].repeat_interleave(group, dim=0),
            positions=(prefix + lengths).repeat_interleave(group),
            start=prefix + longest,
            mask=self._padding_mask(lengths.repeat_interleave(group), prefix, longest, cache.shape[-2]),
        )

    def _embed_padded(self, prompts: Sequence[Prompt], longest: int) -> Float[Tensor, "P longest D"]:
        token_ids: list[int] = []
        values: list[Sequence[float]] = []
        for prompt in prompts:
            padding = longest - len(prompt.token_ids)
            token_ids += [*prompt.token_ids, *[self.reader.eos] * padding]
            values += [*(prompt.values or [(0.0, 0.0)] * len(prompt.token_ids)), *[(0.0, 0.0)] * padding]
        return self.reader.embed(token_ids, values).unflatten(0, (len(prompts), longest))

    def _padding_mask(self, lengths: Tensor, prefix: int, longest: int, slots: int) -> Tensor | None:
        if bool((lengths == longest).all()):
            return None
        slot = torch.arange(slots, device=lengths.device)
        padding = (slot >= (prefix + lengths)[:, None]) & (slot < prefix + longest)
        return torch.zeros_like(padding, dtype=self.decoder.dtype).masked_fill_(padding, -torch.inf)[:, None, None]

    def draw_bins(
        self,
        hidden: Float[Tensor, "B D"],
        token: Int[Tensor, " B"],
        temperature: float,
        generator: torch.Generator,
    ) -> tuple[Int[Tensor, "B 2"], Float[Tensor, " B"], Float[Tensor, "B 2"]]:
        """Bins of the rows whose token is a coordinate or a size, their log-probability, and the values they mean."""
        coord_logits, size_logits = self.reader.region_logits(hidden)
        coord, coord_log_prob = draw(coord_logits, temperature, generator)
        size, size_log_prob = draw(size_logits, temperature, generator)
        is_coord, is_size = (token == self.reader.coord)[:, None], (token == self.reader.size)[:, None]
        of_coord = F.pad(coord[:, None], (0, 1))
        bins = torch.where(is_coord, of_coord, torch.where(is_size, size, 0))
        octaves = size * (10.0 / (size_logits.shape[-1] - 1)) - 10.0
        values = torch.where(is_coord, of_coord / self.coord_top, torch.where(is_size, octaves.exp2(), 0.0))
        log_prob = torch.where(is_coord[:, 0], coord_log_prob, torch.where(is_size[:, 0], size_log_prob.sum(-1), 0.0))
        return bins, log_prob, values


def _distinct_crops(image: CroppedImage) -> np.ndarray:
    return image.crops[:1] if image.tiling == (1, 1) else image.crops


def _chunks(crops: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Images in order, together at most `CROPS_AT_ONCE` crops, or one image."""
    chunk: list[np.ndarray] = []
    for own in crops:
        if chunk and sum(map(len, chunk)) + len(own) > CROPS_AT_ONCE:
            yield chunk
            chunk = []
        chunk.append(own)
    yield chunk
