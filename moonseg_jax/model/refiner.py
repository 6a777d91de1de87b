"""The refinement head: a coarse mask and the vision features of its crop go in, better masks come out.

Formulas: moondream3 specification §12 (the head) and §11.5 (the loop). Letters: N crops, g patches along a
crop, S side of the mask, W width of the vision encoder, E embed width, T output tokens (masks + 1), M masks.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moonseg_jax.config import ModelConfig, RefinerHeadConfig

EPSILON = 1e-5
FINAL_HEADS = 4
"""Attention heads of the last look at the upsampled features."""
MLP_RATIO = 8
TOKEN_DEVIATION = 0.02
"""Of fresh tokens and positions."""


@flax.struct.dataclass
class Refinement:
    """What every iteration of the loop produced; leading axis: iterations."""

    logits: Float[Array, "iterations N M S S"]
    """Mask logits of all candidates."""
    iou: Float[Array, "iterations N M"]
    """Predicted IoU of the candidates, raw (no sigmoid)."""
    best: Int[Array, "iterations N"]
    """The candidate with the highest predicted IoU; it feeds the next iteration."""
    masks: Float[Array, "iterations N S S"]
    """Probabilities of the best candidate."""


def layer_norm(name: str) -> nn.LayerNorm:
    """LayerNorm over the last axis with the official epsilon; at image positions this is LN2d."""
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name=name)


def group_norm(groups: int, name: str) -> nn.GroupNorm:
    """GroupNorm over channels-last images with the official epsilon."""
    return nn.GroupNorm(groups, epsilon=EPSILON, use_fast_variance=False, name=name)


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Exact GELU; the head never uses the tanh form."""
    return jax.nn.gelu(x, approximate=False)


def resize_bilinear(x: Float[Array, "N H W C"], height: int, width: int) -> Float[Array, "N height width C"]:
    """Bilinear resize with half-pixel centres, corners not aligned, no antialiasing."""
    shape = (x.shape[0], height, width, x.shape[3])
    return jax.image.resize(x, shape, jax.image.ResizeMethod.LINEAR, antialias=False)


class Attention(nn.Module):
    """Multi-head attention of queries over keys and values, with biases throughout."""

    width: int
    heads: int

    @nn.compact
    def __call__(
        self, queries: Float[Array, "N Q E"], keys: Float[Array, "N K E"], values: Float[Array, "N K E"]
    ) -> Float[Array, "N Q E"]:
        """Scaled dot-product attention over contiguous heads, then the output projection."""
        projected = [
            nn.Dense(self.width, name=name)(x).reshape(*x.shape[:2], self.heads, -1)
            for name, x in (("query", queries), ("key", keys), ("value", values))
        ]
        query_NQHD, key_NKHD, value_NKHD = projected
        scores_NHQK = jnp.einsum("NQHD,NKHD->NHQK", query_NQHD, key_NKHD) * query_NQHD.shape[-1] ** -0.5
        mixed_NQHD = jnp.einsum("NHQK,NKHD->NQHD", jax.nn.softmax(scores_NHQK, axis=-1), value_NKHD)
        return nn.Dense(self.width, name="out")(mixed_NQHD.reshape(*queries.shape[:2], self.width))


class Mlp(nn.Module):
    """Dense layers with exact GELU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inner"]) -> Float[Array, "*batch outer"]:
        """Applies the layers in turn; none after the last."""
        for index, width in enumerate(self.widths):
            x = nn.Dense(width, name=f"dense_{index}")(gelu(x) if index else x)
        return x


class TwoWayBlock(nn.Module):
    """Tokens look at themselves and the image, then the image looks back; residual, normalised after."""

    config: RefinerHeadConfig

    @nn.compact
    def __call__(
        self,
        carry: tuple[Float[Array, "N T E"], Float[Array, "N gg E"]],
        token_positions: Float[Array, "T E"],
        image_positions: Float[Array, "gg E"],
    ) -> tuple[tuple[Float[Array, "N T E"], Float[Array, "N gg E"]], None]:
        """Updates (tokens, image); the positions are added to queries and keys, never to values."""
        embed, heads = self.config.embed, self.config.heads
        tokens, image = carry
        placed = tokens + token_positions
        tokens = layer_norm("norm_self")(
            tokens + Attention(embed, heads, name="self_attention")(placed, placed, tokens)
        )
        tokens = layer_norm("norm_image")(
            tokens
            + Attention(embed, heads, name="token_to_image")(tokens + token_positions, image + image_positions, image)
        )
        tokens = layer_norm("norm_mlp")(tokens + Mlp((MLP_RATIO * embed, embed), name="mlp")(tokens))
        image = layer_norm("norm_back")(
            image
            + Attention(embed, heads, name="image_to_token")(image + image_positions, tokens + token_positions, tokens)
        )
        return (tokens, image), None


class MaskEncoder(nn.Module):
    """Four strided convolutions from the mask to a code on the grid.

    The group counts follow the official 1, 8, 16, 32: one group first, then a quarter, a half and all of
    `norm_groups`.
    """

    config: RefinerHeadConfig
    grid: int

    @nn.compact
    def __call__(self, mask: Float[Array, "N S S"]) -> Float[Array, "N g g E"]:
        """Codes of the masks, resized to the grid."""
        full = self.config.norm_groups
        groups = (1, full // 4, full // 2, full)
        x = mask[..., None]
        for index, width in enumerate((*self.config.mask_encoder_widths, self.config.embed)):
            x = nn.Conv(width, (3, 3), strides=2, padding=1, name=f"conv_{index}")(x)
            x = gelu(group_norm(groups[index], f"norm_{index}")(x))
        return resize_bilinear(x, self.grid, self.grid)


class Upsampler(nn.Module):
    """Doubles the grid a number of times while halving the channels."""

    doublings: int

    @nn.compact
    def __call__(self, x: Float[Array, "N g g E"]) -> Float[Array, "N fine fine narrow"]:
        """Transposed convolution, norm, GELU, convolution, norm, GELU, for each doubling."""
        for index in range(self.doublings):
            count, height, width, channels = x.shape
            # A 2x2 transposed convolution of stride 2 has no overlaps: one product and a reordering.
            x = nn.Dense(2 * channels, use_bias=False, name=f"double_{index}")(x)
            x = x.reshape(count, height, width, 2, 2, channels // 2).transpose(0, 1, 3, 2, 4, 5)
            x = x.reshape(count, 2 * height, 2 * width, channels // 2)
            x = x + self.param(f"double_{index}_bias", nn.initializers.zeros, (channels // 2,))
            x = gelu(layer_norm(f"norm_double_{index}")(x))
            x = nn.Conv(channels // 2, (3, 3), padding=1, name=f"conv_{index}")(x)
            x = gelu(layer_norm(f"norm_conv_{index}")(x))
        return x


class RefinementHead(nn.Module):
    """Masks and their predicted IoU from vision features and a mask to improve.

    Attributes:
      config: sizes of the head.
      grid: patches along the crop, of the features.
      doublings: how often the grid is doubled before the masks are read off; 3 in the official head.
    """

    config: RefinerHeadConfig
    grid: int
    doublings: int = 3

    def setup(self) -> None:
        """Declares the parts, in the order the data takes."""
        config, embed, up = self.config, self.config.embed, self.config.embed // 2**self.doublings
        self.image_projection = nn.Dense(embed)
        self.early_projection = nn.Dense(embed)
        self.early_norm = layer_norm("early_norm")
        self.fusion_reduce = nn.Dense(embed)
        self.fusion_reduce_norm = group_norm(config.norm_groups, "fusion_reduce_norm")
        self.fusion_mix = nn.Conv(embed, (3, 3), padding=1)
        self.fusion_mix_norm = group_norm(config.norm_groups, "fusion_mix_norm")
        self.mask_encoder = MaskEncoder(config, self.grid)
        small = nn.initializers.normal(TOKEN_DEVIATION)
        self.mask_tokens = self.param("mask_tokens", small, (config.masks, embed))
        self.iou_token = self.param("iou_token", small, (1, embed))
        self.token_positions = self.param("token_positions", small, (config.masks + 1, embed))
        self.image_positions = self.param("image_positions", small, (self.grid, self.grid, embed))
        self.blocks = nn.scan(
            TwoWayBlock,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=config.layers,
        )(config)
        self.final_attention = Attention(embed, config.heads)
        self.final_norm = layer_norm("final_norm")
        self.upsampler = Upsampler(self.doublings)
        self.mask_query = nn.Dense(up)
        self.mask_query_norm = layer_norm("mask_query_norm")
        self.mask_attention = Attention(up, FINAL_HEADS)
        self.mask_mlps = nn.vmap(Mlp, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=1, out_axes=1)(
            (up, up, up)
        )
        self.iou_mlp = Mlp((embed, embed, config.masks))

    def __call__(
        self, final: Float[Array, "N gg W"], early: Float[Array, "N gg W"], mask: Float[Array, "N S S"]
    ) -> tuple[Float[Array, "N M S S"], Float[Array, "N M"]]:
        """One iteration: mask logits at the size of `mask`, and raw predicted IoU.

        Args:
          final: features after the encoder's last LayerNorm.
          early: output of the encoder's early block.
          mask: probabilities of the mask to improve, in the crop's frame.
        """
        return self.improve(self.fuse(final, early), mask)

    def fuse(self, final: Float[Array, "N gg W"], early: Float[Array, "N gg W"]) -> Float[Array, "N g g E"]:
        """The part of the head that does not see the mask: computed once for all iterations."""
        shape = (final.shape[0], self.grid, self.grid, self.config.embed)
        late = self.image_projection(final).reshape(shape)
        soon = gelu(self.early_norm(self.early_projection(early))).reshape(shape)
        fused = self.fusion_reduce(jnp.concatenate([soon, late], axis=-1))
        fused = self.fusion_mix(gelu(self.fusion_reduce_norm(fused)))
        return gelu(self.fusion_mix_norm(fused))

    def improve(
        self, fused: Float[Array, "N g g E"], mask: Float[Array, "N S S"]
    ) -> tuple[Float[Array, "N M S S"], Float[Array, "N M"]]:
        """The part of the head that sees the mask: logits at the mask's size, and raw predicted IoU."""
        count, masks, embed = len(mask), self.config.masks, self.config.embed
        image = (fused + self.mask_encoder(mask)).reshape(count, -1, embed)
        places = self.image_positions.reshape(-1, embed)
        tokens = jnp.concatenate([self.mask_tokens, self.iou_token])
        tokens = jnp.broadcast_to(tokens, (count, *tokens.shape))
        (tokens, image), _ = self.blocks((tokens, image), self.token_positions, places)
        tokens = self.final_norm(tokens + self.final_attention(tokens + self.token_positions, image + places, image))
        upsampled = self.upsampler(image.reshape(count, self.grid, self.grid, embed))
        pixels = upsampled.reshape(count, -1, upsampled.shape[-1])
        queries = self.mask_query(tokens[:, :masks])
        queries = queries + self.mask_attention(self.mask_query_norm(queries), pixels, pixels)
        logits = jnp.einsum("NMC,NhwC->NhwM", self.mask_mlps(queries), upsampled)
        logits = resize_bilinear(logits, mask.shape[1], mask.shape[2])
        return jnp.moveaxis(logits, -1, 1), self.iou_mlp(tokens[:, masks])


def make_head(model: ModelConfig) -> RefinementHead:
    """The head that fits a model's vision encoder."""
    return RefinementHead(model.refiner, model.vision.grid)


def head_shapes(head: RefinementHead, width: int) -> dict:
    """Shapes of the head's parameters for features of `width`, without allocating them."""
    features = jnp.zeros((1, head.grid**2, width))
    mask = jnp.zeros((1, 16 * head.grid, 16 * head.grid))
    return jax.eval_shape(head.init, jax.random.key(0), features, features, mask)["params"]


def init_head(head: RefinementHead, width: int, seed: int) -> dict:
    """Fresh parameters as nested dicts of host arrays.

    Kernels are normal with variance 1 / fan-in, tokens and positions normal with deviation 0.02. Drawn on the
    host: compiling the same draws takes XLA half a minute on a CPU.

    Args:
      head: the module.
      width: of the vision features.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        names = [part.key for part in path]
        if names[-1].endswith("bias"):
            return np.zeros(leaf.shape, np.float32)
        if names[-1] == "scale":
            return np.ones(leaf.shape, np.float32)
        stacked = names[0] in ("blocks", "mask_mlps")
        is_kernel = names[-1] == "kernel"
        deviation = math.prod(leaf.shape[stacked:-1]) ** -0.5 if is_kernel else TOKEN_DEVIATION
        return rng.normal(0.0, deviation, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, head_shapes(head, width))


def best_mask(
    logits: Float[Array, "N M S S"], iou: Float[Array, "N M"]
) -> tuple[Float[Array, "N S S"], Int[Array, " N"]]:
    """Probabilities of the candidate with the highest predicted IoU, and which one it is."""
    best = jnp.argmax(iou, axis=1)
    chosen = jnp.take_along_axis(logits, best[:, None, None, None], axis=1)[:, 0]
    return jax.nn.sigmoid(chosen), best


def refine_loop(
    head: RefinementHead,
    params: dict,
    final: Float[Array, "N gg W"],
    early: Float[Array, "N gg W"],
    coarse: Float[Array, "N S S"],
    iterations: int,
) -> Refinement:
    """Feeds the head its own best mask, as probabilities, `iterations` times (specification §11.5).

    Gradients do not cross from one iteration to the one before it.

    Args:
      head: the module; `params` are its parameters.
      final: features after the encoder's last LayerNorm.
      early: output of the encoder's early block.
      coarse: the mask to start from, 0 or 1 in the crop's frame.
      iterations: at least 1.
    """

    def run(method: str, *inputs: Array) -> Any:
        return head.apply({"params": params}, *inputs, method=method)

    fused = run("fuse", final, early)

    def step(mask: Array, _: None) -> tuple[Array, Refinement]:
        logits, iou = run("improve", fused, mask)
        improved, best = best_mask(logits, iou)
        # Every iteration answers for its own output alone: no gradient runs back through its input.
        return jax.lax.stop_gradient(improved), Refinement(logits=logits, iou=iou, best=best, masks=improved)

    # Unrolled: XLA's CPU back end runs convolutions inside loops tens of times slower than outside.
    _, refinement = jax.lax.scan(step, coarse.astype(fused.dtype), None, length=iterations, unroll=True)
    return refinement
