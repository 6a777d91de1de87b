"""Masks from words with PyTorch alone, from a checkpoint written by `moonseg export`.

python experiments/pytorch_inference.py CHECKPOINT_DIR IMAGE "phrase" -o out.svg -o mask.png

This one file runs wherever torch, safetensors, tokenizers, pillow and numpy are (and opencv for the refiner). It
decodes greedily, fills the path and, where there is a head, refines the mask; an SVG shows the path as written.

Letters: B crops, g patches along a crop, S its side in pixels, W vision width, T tokens, D text width, M masks.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

FROM_MD3 = (
    ("vision_encoder.encoder.model.visual.", "vision."), ("vision_encoder.projection.mlp.", "vision.proj_mlp."),
    ("patch_embed.linear", "patch_emb"), ("pos_embed", "pos_emb"), (".norm1.", ".ln1."), (".norm2.", ".ln2."),
    ("vision.norm.", "vision.post_ln."), ("text_model.transformer.embd.wte.weight", "text.wte"),
    ("text_model.transformer.h.", "text.blocks."), (".mixer.Wqkv.", ".attn.qkv."), (".mixer.out_proj.", ".attn.proj."),
    (".tau_", ".attn.tau."), (".gate.", ".mlp.router."), (".mlp.experts.", ".mlp.fc1."),
    (".mlp.output_experts.", ".mlp.fc2."), ("text_model.lm_head.ln.", "text.post_ln."),
    ("text_model.lm_head.linear.", "text.lm_head."), ("region_model.", "region."), ("coordinate_", "coord_"),
    ("_features.weight", "_features"), ("coord_head", "coord_decoder"), ("size_head", "size_decoder"),
)  # fmt: skip
"""Pieces of md3 names and what Hugging Face calls them; replaced in this order."""
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" preserveAspectRatio="none" width="{width}" \
height="{height}"><path d="{path}" fill="white" transform="translate({corner[0]},{corner[1]}) \
scale({size[0]},{size[1]})"/></svg>"""
CURVES = {"M": 1, "L": 1, "T": 1, "Q": 2, "S": 2, "C": 3}  # Points that each segment of a path command takes.
Box = tuple[float, float, float, float]
Command = tuple[str, np.ndarray]  # Letter, and points [n, 2] in units of the box.
Completion = list[tuple[int, tuple[float, float]]]  # Tokens with (coordinate, 0), (width, height) or, at text, zeros.


class Weights:
    """Tensors below one prefix, and the layers that they are the parameters of."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str = ""):
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name]

    def under(self, name: str) -> Weights:
        """The tensors below `name`."""
        return Weights(self.tensors, f"{self.prefix}{name}.")

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Linear layer over the last axis; 1x1 convolutions serve as such."""
        return F.linear(x, self[f"{name}.weight"].flatten(1), self[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        """LayerNorm over the last axis."""
        return F.layer_norm(x, x.shape[-1:], self[f"{name}.weight"], self[f"{name}.bias"], 1e-5)

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """3x3 convolution, channels first."""
        return F.conv2d(x, self[f"{name}.weight"], self[f"{name}.bias"], stride, padding=1)

    def grouped(self, name: str, x: Tensor, groups: int) -> Tensor:
        """GELU of a GroupNorm, channels first."""
        return F.gelu(F.group_norm(x, groups, self[f"{name}.weight"], self[f"{name}.bias"], 1e-5))

    def mlp(self, x: Tensor, *names: str, approximate: str = "none") -> Tensor:
        """Linear layers with GELU between them."""
        for index, name in enumerate(names):
            x = self.linear(name, F.gelu(x, approximate=approximate) if index else x)
        return x


def load_checkpoint(folder: Path, dtype: torch.dtype, device: str) -> tuple[dict[str, Any], Weights, Weights | None]:
    """`config.json`, the policy's weights under Hugging Face names without `model.`, and the head's if there is one."""
    index, head = folder / "model.safetensors.index.json", folder / "refiner.safetensors"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    policy: dict[str, Tensor] = {}
    for shard in sorted(shards):
        for name, tensor in load_file(folder / shard, device).items():
            if name.startswith(("vision_encoder.", "text_model.", "region_model.")):
                for old, new in FROM_MD3:
                    name = name.replace(old, new)
                tensor = tensor.T if name.endswith("_features") else tensor
            policy[name.removeprefix("model.")] = tensor.to(dtype)
    refiner = {name: x.to(dtype) for name, x in load_file(head, device).items()} if head.is_file() else {}
    return config, Weights(policy), Weights(refiner) if refiner else None


class Moondream:
    """The policy: vision encoder, text decoder and region heads, for inference."""

    def __init__(self, config: dict[str, Any], weights: Weights):
        self.config, self.text, self.region = config, weights.under("text"), weights.under("region")
        self.vision, self.heads = weights.under("vision"), config["text"]["n_heads"]
        self.bos, self.eos, self.coord, self.size = (config["tokens"][name] for name in ("bos", "eos", "coord", "size"))
        self.blocks = [self.text.under(f"blocks.{i}") for i in range(config["text"]["n_layers"])]
        self.dtype, self.device = self.text["wte"].dtype, self.text["wte"].device

    def encode_crops(self, crops: np.ndarray) -> tuple[Tensor, Tensor]:
        """Final and early features [B, g*g, W] of crops uint8[B, S, S, 3]."""
        c = self.config["vision"]
        pixels = (torch.as_tensor(crops, device=self.device).float() / 255 - 0.5) / 0.5
        # Unfolding a channels-first image gives patch vectors in the official order: channel, row, column.
        patches = F.unfold(pixels.permute(0, 3, 1, 2), c["enc_patch_size"], stride=c["enc_patch_size"])
        x = early = self.vision.linear("patch_emb", patches.transpose(1, 2).to(self.dtype)) + self.vision["pos_emb"]
        for layer, block in enumerate(self.vision.under(f"blocks.{i}") for i in range(c["enc_n_layers"])):
            qkv = block.linear("attn.qkv", block.norm("ln1", x)).unflatten(-1, (3, c["enc_n_heads"], -1))
            mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)
            x = x + block.linear("attn.proj", mixed)
            x = x + block.mlp(block.norm("ln2", x), "mlp.fc1", "mlp.fc2", approximate="tanh")
            early = x if layer == self.config["vision_early_layer"] else early
        return self.vision.norm("post_ln", x), early

    def embed_image(self, crops: np.ndarray, tiling: tuple[int, int]) -> Tensor:
        """Image embeddings [g*g, D] of the whole image (crop 0) and its rows x columns of tiles."""
        return self.stitch(self.encode_crops(crops)[0], tiling)

    def stitch(self, final: Tensor, tiling: tuple[int, int]) -> Tensor:
        """The same from the crops' final features [1 + tiles, g*g, W]."""
        (rows, cols), margin, grid = tiling, self.config["vision"]["overlap_margin"], math.isqrt(final.shape[1])
        tiles = final[1:].unflatten(0, tiling).unflatten(2, (grid, grid))
        # Neighbouring tiles overlap by twice the margin; each keeps its inner part, the outermost their rims too.
        inner = [[slice(i and margin, grid - (i < n - 1) * margin) for i in range(n)] for n in tiling]
        strips = [torch.cat([tiles[i, j, inner[0][i], inner[1][j]] for j in range(cols)], 1) for i in range(rows)]
        pooled = F.adaptive_avg_pool2d(torch.cat(strips).permute(2, 0, 1), grid).flatten(1).T
        return self.vision.mlp(torch.cat([final[0], pooled], -1), "proj_mlp.fc1", "proj_mlp.fc2", approximate="tanh")

    def embed(self, token_ids: Sequence[int], values: Sequence[Sequence[float]]) -> Tensor:
        """Input embeddings [T, D]: rows of the vocabulary, or of the values [T, 2] at coordinates and sizes."""
        ids = torch.tensor(token_ids, device=self.device)
        known = torch.tensor(values, dtype=torch.float32, device=self.device)
        embedded = F.embedding(ids, self.text["wte"])
        for token, kind, count in ((self.coord, "coord", 1), (self.size, "size", 2)):
            angle = 2 * math.pi * known[:, :count] @ self.region[f"{kind}_features"].float()
            waves = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.dtype)
            embedded = torch.where((ids == token)[:, None], self.region.linear(f"{kind}_encoder", waves), embedded)
        return embedded

    def run(self, x: Tensor, cache: Tensor, start: int, prefix: int) -> Tensor:
        """Hidden rows [T, D], before the final norm, of embeddings [T, D] at positions `start`, `start + 1`, …

        The cache [layers, 2, heads, slots, head width] holds the keys and values of all positions before and takes
        the new ones. The first `prefix` positions (BOS and image) all see each other; 0 for text alone.
        """
        keys = torch.arange(start + len(x), device=self.device)
        positions = keys[start:]
        seen = (keys <= positions[:, None]) | ((keys < prefix) & (positions[:, None] < prefix))
        for block, kept in zip(self.blocks, cache):
            normed, mlp = block.norm("ln", x), block.under("mlp")
            mixed = self._attend(block.under("attn"), normed, positions, seen, kept[:, :, : len(keys)])
            is_routed = mlp["fc1.weight"].ndim == 3
            out = self._routed(mlp, normed) if is_routed else mlp.mlp(normed, "fc1", "fc2", approximate="tanh")
            x = x + mixed + out
        return x

    def _attend(self, w: Weights, normed: Tensor, positions: Tensor, seen: Tensor, cache: Tensor) -> Tensor:
        """Tau attention over the cache, the new rows included."""
        qkv, theta = w.linear("qkv", normed), self.config["text"].get("rope_theta", 1.5e6)
        active = F.gelu(qkv, approximate="tanh" if self.config.get("tau_gelu", "tanh") == "tanh" else "none")
        slope = w["tau.alpha"].float() * (positions.float() + 1).log()[:, None]
        place = (0.5 + slope.sigmoid()).to(self.dtype)
        tau_q, tau_v = ((F.linear(active, w[name]).tanh() + place).T[..., None] for name in ("tau.wq", "tau.wv"))
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)
        cache[0, :, positions] = rotate(k, positions, theta)
        cache[1, :, positions] = v * tau_v
        mixed = F.scaled_dot_product_attention(rotate(q * tau_q, positions, theta), cache[0], cache[1], seen)
        return w.linear("proj", mixed.transpose(0, 1).flatten(1))

    def _routed(self, w: Weights, normed: Tensor) -> Tensor:
        """Every token through its best experts; none sees a token that did not choose it, none drops one."""
        best, chosen = w.linear("router", normed).float().topk(self.config["text"]["moe"]["experts_per_token"])
        share, out = best.softmax(-1).to(self.dtype), torch.zeros_like(normed)
        for expert in chosen.unique().tolist():
            row, slot = (chosen == expert).nonzero(as_tuple=True)
            active, gate = F.linear(normed[row], w["fc1.weight"][expert]).chunk(2, dim=-1)
            result = F.linear(F.gelu(active) * (gate + 1), w["fc2.weight"][expert])
            out.index_add_(0, row, result * share[row, slot, None])
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 vocabulary logits of hidden rows."""
        return self.text.linear("lm_head", self.text.norm("post_ln", hidden)).float()

    def region_logits(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 logits of the coordinate bins [..., c], and of the width and height bins [..., 2, s]."""
        normed = self.region.norm("ln", hidden) if self.config["region"]["use_ln"] else hidden
        coord, size = (self.region.linear(name, normed).float() for name in ("coord_decoder", "size_decoder"))
        return coord, size.unflatten(-1, (2, -1))

    def region_values(self, hidden: Tensor) -> tuple[float, tuple[float, float]]:
        """The best coordinate, and the best width and height, that one hidden row [D] says; units of the image."""
        coord, size = self.region_logits(hidden)
        top = coord.shape[-1] - (self.config["region"].get("coord_top", "bins-1") == "bins-1")
        width, height = (2.0 ** (10.0 * bin / (size.shape[-1] - 1) - 10.0) for bin in size.argmax(-1).tolist())
        return int(coord.argmax()) / top, (width, height)

    def segment(self, image: Tensor, prompt: list[int], budget: int, grammar: Polygons | None = None) -> Completion:
        """Decodes greedily after image embeddings [g*g, D] and a prompt, until EOS (included) or `budget` tokens."""
        text = self.embed([self.bos, *prompt], [(0.0, 0.0)] * (1 + len(prompt)))
        rows, prefix = torch.cat([text[:1], image, text[1:]]), 1 + len(image)
        shape = (len(self.blocks), 2, self.heads, len(rows) + budget, image.shape[1] // self.heads)
        position, cache = 0, torch.zeros(shape, dtype=self.dtype, device=self.device)
        completion: Completion = []
        while len(completion) < budget:
            hidden = self.run(rows, cache, position, prefix)[-1]
            logits, (coord, size) = self.logits(hidden), self.region_values(hidden)
            legal = grammar.legal([token for token, _ in completion], budget) if grammar else list(range(len(logits)))
            token = legal[int(logits[legal].argmax())]
            value = (coord, 0.0) if token == self.coord else size if token == self.size else (0.0, 0.0)
            completion.append((token, value))
            if token == self.eos:
                break
            position, rows = position + len(rows), self.embed([token], [value])
        return completion

    def box(self, completion: Completion) -> Box | None:
        """cx, cy, w, h from the first two coordinates and the first size, unclipped; None where one is missing."""
        coords = [value[0] for token, value in completion if token == self.coord]
        sizes = [value for token, value in completion if token == self.size]
        return (coords[0], coords[1], *sizes[0]) if len(coords) > 1 and sizes else None


def rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotary embedding of the first half of the head width of x [heads, T, d], as two halves, in float32."""
    rotating = x.shape[-1] // 2
    angle = positions[:, None] * theta ** (-2.0 * torch.arange(rotating // 2, device=x.device) / rotating)
    first, second = x[..., :rotating].float().chunk(2, dim=-1)
    turned = (first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos())
    return torch.cat([*(part.to(x.dtype) for part in turned), x[..., rotating:]], dim=-1)


class RefinementHead:
    """Candidate masks and their predicted IoU from vision features and a mask to improve."""

    def __init__(self, config: dict[str, Any], weights: Weights):
        self.w, self.sizes, groups = weights, config["refiner"], config["refiner"].get("norm_groups", 32)
        self.groups = (1, groups // 4, groups // 2, groups)

    def __call__(self, final: Tensor, early: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits [B, M, S, S] and raw predicted IoU [B, M] from features [B, g*g, W] and a mask [B, 1, S, S]."""
        w, heads = self.w, self.sizes["num_heads"]
        image = self._image_code(final, early, mask)
        shape, image, places = image.shape, *(x.flatten(2).transpose(1, 2) for x in (image, w["image_pe"]))
        tokens, order = torch.cat([w["mask_tokens"], w["iou_token"]]).expand(len(image), -1, -1), w["output_pe"]
        for b in (w.under(f"transformer_blocks.{i}") for i in range(self.sizes["num_layers"])):
            placed = tokens + order
            tokens = b.norm("norm1", tokens + attend(b.under("output_self_attn"), heads, placed, placed, tokens))
            seen = attend(b.under("cross_attn_token_to_image"), heads, tokens + order, image + places, image)
            tokens = b.norm("norm2", tokens + seen)
            tokens = b.norm("norm3", tokens + b.mlp(tokens, "mlp.0", "mlp.2"))
            seen = attend(b.under("cross_attn_image_to_token"), heads, image + places, tokens + order, tokens)
            image = b.norm("norm4", image + seen)
        seen = attend(w.under("final_token_to_image"), heads, tokens + order, image + places, image)
        tokens = w.norm("final_norm", tokens + seen)
        fine = self._upsampled(image.transpose(1, 2).reshape(shape))
        pixels, queries = fine.flatten(2).transpose(1, 2), w.linear("final_q_proj", tokens[:, :-1])
        queries = queries + attend(w.under("final_attn_up"), 4, w.norm("final_norm_up", queries), pixels, pixels)
        mlps = [w.under(f"mask_mlps.{i}") for i in range(self.sizes["num_masks"])]
        mixing = torch.stack([mlp.mlp(queries[:, i], "0", "2", "4") for i, mlp in enumerate(mlps)], 1)
        logits = F.interpolate(torch.einsum("bmc,bchw->bmhw", mixing, fine), mask.shape[-2:], mode="bilinear")
        return logits, w.mlp(tokens[:, -1], "iou_head.0", "iou_head.2", "iou_head.4")

    def _image_code(self, final: Tensor, early: Tensor, mask: Tensor) -> Tensor:
        fusion, grid = self.w.under("hq_fusion"), (math.isqrt(final.shape[1]),) * 2
        soon = F.gelu(fusion.norm("early_proj.1", fusion.linear("early_proj.0", early)))
        x = fusion.linear("fusion.0", torch.cat([soon, self.w.linear("image_proj", final)], dim=-1))
        x = fusion.grouped("fusion.1", x.transpose(1, 2).unflatten(2, grid), self.groups[-1])
        x = fusion.grouped("fusion.4", fusion.conv("fusion.3", x), self.groups[-1])
        for number, groups in enumerate(self.groups, start=1):
            stage = self.w.under(f"mask_encoder.conv{number}")
            mask = stage.grouped("1", stage.conv("0", mask, stride=2), groups)
        return x + F.interpolate(mask, grid, mode="bilinear")

    def _upsampled(self, x: Tensor) -> Tensor:
        up = self.w.under("upsample")

        def active(number: int, x: Tensor) -> Tensor:
            return F.gelu(up.norm(f"{number}.norm", x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

        for first in (0, 6, 12):
            x = active(first + 1, F.conv_transpose2d(x, up[f"{first}.weight"], up[f"{first}.bias"], stride=2))
            x = active(first + 4, up.conv(f"{first + 3}", x))
        return x


def attend(w: Weights, heads: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Multi-head attention with torch's joint input projection; all are [B, T, width]."""
    parts = zip((queries, keys, values), w["in_proj_weight"].chunk(3), w["in_proj_bias"].chunk(3))
    q, k, v = (F.linear(*part).unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    return w.linear("out_proj", F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def make_crops(image: np.ndarray, config: dict[str, Any]) -> tuple[np.ndarray, tuple[int, int]]:
    """Crops uint8[1 + tiles, S, S, 3] of an image uint8[H, W, 3], the whole one first, and (rows, columns)."""
    side, margins = config["crop_size"], 2 * config["overlap_margin"] * config["enc_patch_size"]
    window = side - margins
    height, width = (max(length - margins, 1) for length in image.shape[:2])
    rows, cols = count_tiles(height, width, window, config["max_crops"])
    canvas = resize(image, rows * window + margins, cols * window + margins)
    tiles = [canvas[window * i :, window * j :][:side, :side] for i in range(rows) for j in range(cols)]
    return np.stack([resize(image, side, side), *tiles]), (rows, cols)


def count_tiles(height: int, width: int, window: int, most: int) -> tuple[int, int]:
    """Rows and columns of at most `most` tiles that add `window` pixels each."""
    if min(height, width) <= window:
        return 1, 1
    rows, cols = math.ceil(height / window), math.ceil(width / window)
    if rows * cols > most:
        share = math.sqrt(most / (rows * cols))
        return max(1, math.floor(rows * share)), max(1, math.floor(cols * share))
    rows, cols = max(int(math.sqrt(most * height / width)), rows), max(int(math.sqrt(most * width / height)), cols)
    if rows * cols > most:
        rows, cols = (rows, most // rows) if cols > rows else (most // cols, cols)
    return max(1, rows), max(1, cols)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Lanczos-3 as the official engine does it: whole blocks averaged first, then rows before columns."""
    down, across = (n // out if n > 2.5 * out else 1 for n, out in zip(image.shape, (height, width)))
    blocks = image[: image.shape[0] // down * down, : image.shape[1] // across * across]
    blocks = blocks.reshape(image.shape[0] // down, down, image.shape[1] // across, across, 3)
    turned = (blocks.sum((1, 3), dtype=np.uint32) // (down * across)).astype(np.uint8).transpose(1, 0, 2)
    resized = Image.fromarray(np.ascontiguousarray(turned)).resize((height, width), Image.Resampling.LANCZOS)
    return np.asarray(resized).transpose(1, 0, 2)


def prompt_tokens(phrase: str, tokenizer: Tokenizer, paths: dict[str, Any]) -> list[int]:
    """Prompt after BOS and image; tokenizers of closed vocabularies know lower-case words only."""
    unknown = json.loads(tokenizer.to_str())["model"].get("unk_token")
    phrase = " ".join(phrase.split())
    ids = tokenizer.encode(phrase if unknown is None else phrase.lower(), add_special_tokens=False).ids
    if not ids or (unknown is not None and tokenizer.token_to_id(unknown) in ids):
        raise ValueError(f"the phrase {phrase!r} is empty or has words outside the tokenizer's vocabulary")
    return [*paths.get("prompt_prefix", (1, 17374, 2)), *ids, *paths.get("prompt_suffix", (3,))]


class Polygons:
    """What policies trained with the polygon grammar may write: a box, then `M x y x y x y … Z` at least once."""

    def __init__(self, model: Moondream, tokenizer: Tokenizer, step: int):
        lowest = {tokenizer.decode([i]).strip(): i for i in reversed(range(21, tokenizer.get_vocab_size()))}
        self.begin, self.end, self.box = lowest["M"], lowest["Z"], [model.coord, model.coord, model.size]
        self.numbers, self.eos = [lowest[f"{n}"] for n in range(0, 961, step) if f"{n}" in lowest], model.eos

    def legal(self, written: list[int], budget: int) -> list[int]:
        """Tokens that may follow what is written, so that the path can still be closed within the budget."""
        left = budget - len(written)
        if len(written) < 4:
            return [*self.box, self.begin][len(written) : len(written) + 1]
        if written[-1] == self.end:
            return [self.begin, self.eos] if left > 8 else [self.eos]
        numbers = written[::-1].index(self.begin)
        complete = [*self.numbers, self.end] if left > 3 else [self.end]
        return self.numbers if numbers < 6 or numbers % 2 else complete


def read_path(completion: Completion, tokenizer: Tokenizer) -> list[Command]:
    """Path commands from the text of tokens, each decoded alone; an odd last number is dropped, other text raises."""
    pieces = (tokenizer.decode([token], skip_special_tokens=False) for token, _ in completion if token > 20)
    commands: list[tuple[str, list[float]]] = []
    for word in re.sub(r"- +(?=\d)", "-", " ".join(pieces)).split():
        if re.fullmatch("[MLHVCSQTAZmlhvcsqtaz]", word):
            commands.append((word, []))
        elif commands and re.fullmatch(r"-?\d+", word):
            commands[-1][1].append(int(word) / 960)
        else:
            raise ValueError(f"the answer is no path: {word!r} is out of place")
    return [(letter, np.reshape(numbers[: len(numbers) // 2 * 2], (-1, 2))) for letter, numbers in commands]


def path_text(commands: Sequence[Command]) -> str:
    """SVG path data in units of the box, at most three decimals."""
    words = ([letter, *(f"{n:.3f}".rstrip("0").rstrip(".") for n in points.flat)] for letter, points in commands)
    return " ".join(word for command in words for word in command)


def outlines(commands: Sequence[Command]) -> list[np.ndarray]:
    """Subpaths as polygons [n, 2] in units of the box; drawing stops at the first command that cannot be drawn."""
    subpaths: list[list[np.ndarray]] = []
    here, control, smooth = np.zeros(2), np.zeros(2), ""
    for letter, points in commands:
        kind, step = letter.upper(), CURVES.get(letter.upper(), 0)
        if kind == "Z" and subpaths:
            here, smooth = subpaths[-1][0], ""
            subpaths.append([here])
            continue
        if not step or not len(points) or len(points) % step or (kind != "M" and not subpaths):
            break
        for number, group in enumerate(points.reshape(-1, step, 2)):
            group = group + here if letter.islower() else group
            if kind == "M" and number == 0:
                subpaths.append([group[0]])
            # A smooth curve starts with the control point of a curve of the same degree before it, mirrored.
            inner = [2 * here - control if kind in smooth else here] if kind in "ST" else []
            curve = np.array([here, *inner, *group])
            degree, times = len(curve) - 1, np.linspace(0, 1, 25 if len(curve) > 2 else 2)[1:, None]
            terms = [math.comb(degree, i) * times**i * (1 - times) ** (degree - i) * p for i, p in enumerate(curve)]
            subpaths[-1] += list(sum(terms))
            here, control, smooth = group[-1], curve[-2], {3: "S", 2: "T"}.get(degree, "")
    return [np.array(subpath) for subpath in subpaths if len(subpath) > 2]


def fill(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """bool[H, W]: pixels whose centre lies in polygons (units of the image), by the nonzero rule."""
    winding = np.zeros((height, width + 1), int)
    for polygon in polygons:
        points = polygon * (width, height) - 0.5
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0)):
            rows = np.arange(*(min(max(math.ceil(y), 0), height) for y in sorted((y0, y1))))
            columns = np.ceil(x0 + (rows - y0) * (x1 - x0) / ((y1 - y0) or 1)).clip(0, width).astype(int)
            winding[rows, columns] += 1 if y1 > y0 else -1
    return winding.cumsum(axis=1)[:, :-1] != 0


def refine(model: Moondream, head: RefinementHead, image: np.ndarray, box: Box, coarse: np.ndarray) -> np.ndarray:
    """bool[H, W]: a coarse mask improved inside the box grown by a quarter on every side; empty where that fails."""
    import cv2  # Only needed where a checkpoint has a refiner.

    (height, width), side, mask = coarse.shape, model.config["vision"]["crop_size"], np.zeros_like(coarse)
    x0, y0, x1, y1 = corners(box)
    dx, dy = 0.25 * (x1 - x0) * width, 0.25 * (y1 - y0) * height
    left, top = max(int(x0 * width - dx), 0), max(int(y0 * height - dy), 0)
    right, bottom = min(int(x1 * width + dx), width), min(int(y1 * height + dy), height)
    inside = coarse[top:bottom, left:right].astype(np.uint8)
    if inside.any():
        crop = cv2.resize(image[top:bottom, left:right], (side, side), interpolation=cv2.INTER_LINEAR)
        start = torch.as_tensor(cv2.resize(inside, (side, side), interpolation=cv2.INTER_NEAREST))
        features, better = model.encode_crops(crop[None]), start.to(model.device, model.dtype)
        for _ in range(model.config["refiner_iters"]):
            logits, iou = head(*features, better[None, None])
            better = logits[0, int(iou[0].argmax())].sigmoid()
        mask[top:bottom, left:right] = cv2.resize(better.float().cpu().numpy(), inside.shape[::-1]) > 0.5
    return mask


def corners(box: Box) -> Box:
    """x_min, y_min, x_max, y_max of a box cx, cy, w, h whose values are clipped to [0, 1] first."""
    cx, cy, w, h = (min(max(side, 0.0), 1.0) for side in box)
    return max(cx - w / 2, 0.0), max(cy - h / 2, 0.0), min(cx + w / 2, 1.0), min(cy + h / 2, 1.0)


@torch.inference_mode()
def main() -> None:
    """The command line: prints path and box as JSON and writes the outputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind in (("checkpoint", Path), ("image", Path), ("phrase", str)):
        parser.add_argument(name, type=kind)
    parser.add_argument("-o", "--out", type=Path, action="append", required=True, help=".svg (path), .png (mask)")
    parser.add_argument("--tokenizer", type=Path, help="default: CHECKPOINT/tokenizer.json")
    parser.add_argument("--grammar", action="store_true", help="decode polygons only")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    try:
        answer(args)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"{type(error).__name__}: {error}")


def answer(args: argparse.Namespace) -> None:
    """Segments one image as the command line says."""
    config, weights, head = load_checkpoint(args.checkpoint, getattr(torch, args.dtype), args.device)
    model, paths = Moondream(config, weights), config.get("paths", {})
    tokenizer = Tokenizer.from_file(str(args.tokenizer or args.checkpoint / "tokenizer.json"))
    image = np.asarray(ImageOps.exif_transpose(Image.open(args.image)).convert("RGB"))
    crops, prompt = make_crops(image, config["vision"]), prompt_tokens(args.phrase, tokenizer, paths)
    grammar = Polygons(model, tokenizer, paths.get("coordinate_step", 1)) if args.grammar else None
    completion = model.segment(model.embed_image(*crops), prompt, paths.get("max_new_tokens", 768), grammar)
    commands, box, (height, width) = read_path(completion, tokenizer), model.box(completion), image.shape[:2]
    if box is None:
        raise ValueError("the answer has no box: it needs two coordinates and a size")
    path, size, corner = path_text(commands), np.array(box[2:]), np.array(box[:2]) - np.array(box[2:]) / 2
    mask = fill([polygon * size + corner for polygon in outlines(commands)], height, width)
    refined = np.zeros_like(mask) if head is None else refine(model, RefinementHead(config, head), image, box, mask)
    mask, status = (refined, "refined") if refined.any() else (mask, "unrefined")
    bbox = dict(zip(("x_min", "y_min", "x_max", "y_max"), corners(box)))
    print(json.dumps({"path": path, "bbox": bbox, "mask": status}))
    for out in args.out:
        if out.suffix == ".svg":
            out.write_text(SVG.format(width=width, height=height, path=path, corner=corner, size=size))
        else:
            Image.fromarray(mask.astype(np.uint8) * 255).save(out)


if __name__ == "__main__":
    main()
