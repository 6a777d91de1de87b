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
from moonseg_jax.model.refiner_attention import Attention, attend_to_many
from moonseg_jax.model.refiner_layers import Mlp, gelu, group_norm, layer_norm, resize_bilinear
from moonseg_jax.model.refiner_parts import MaskEncoder, TwoWayBlock, Upsampler
from moonseg_jax.model.stacks import unrolled
from moonseg_jax.platforms import platform

FINAL_HEADS = 4
"""Attention heads of the last look at the upsampled features."""
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


class RefinementHead(nn.Module):
    """Masks and their predicted IoU from vision features and a mask to improve.

    Attributes:
      config: sizes of the head.
      grid: patches along the crop, of the features.
      doublings: how often the grid is doubled before the masks are read off; 3 in the official head.
      on_cpu: take forms of the layers that run faster on a CPU; results and gradients differ by rounding.
    """

    config: RefinerHeadConfig
    grid: int
    doublings: int = 3
    on_cpu: bool = False

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
        self.mask_encoder = MaskEncoder(config, self.grid, self.on_cpu)
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
            unroll=unrolled(config.layers) if self.on_cpu else 1,
        )(config)
        self.final_attention = Attention(embed, config.heads)
        self.final_norm = layer_norm("final_norm")
        self.upsampler = Upsampler(self.doublings, self.on_cpu)
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
        tokens, upsampled = self._look(fused, mask)
        pixels = upsampled.reshape(len(mask), -1, upsampled.shape[-1])
        queries = self.mask_query(tokens[:, :-1])
        queries = queries + self.mask_attention(self.mask_query_norm(queries), pixels, pixels)
        logits = jnp.einsum("NMC,NhwC->NhwM", self.mask_mlps(queries), upsampled)
        logits = resize_bilinear(logits, mask.shape[1], mask.shape[2])
        return jnp.moveaxis(logits, -1, 1), self.iou_mlp(tokens[:, -1])

    def improve_best(
        self, fused: Float[Array, "N g g E"], mask: Float[Array, "N S S"]
    ) -> tuple[Float[Array, "N S S"], Float[Array, "N M"]]:
        """What `improve` and then `best_mask` give, drawing that one candidate only: probabilities, and all IoU."""
        tokens, upsampled = self._look(fused, mask)
        iou = self.iou_mlp(tokens[:, -1])
        best = jnp.argmax(iou, axis=1)[:, None, None]
        pixels = upsampled.reshape(len(mask), -1, upsampled.shape[-1])
        query = self.mask_query(jnp.take_along_axis(tokens, best, axis=1))
        look: Any = self.mask_attention.variables["params"]
        query = query + attend_to_many(look, FINAL_HEADS, self.mask_query_norm(query), pixels)
        # Every candidate has an MLP of its own: all are given the query, one answer counts.
        mixing = self.mask_mlps(jnp.broadcast_to(query, (len(mask), self.config.masks, query.shape[-1])))
        mixing = jnp.take_along_axis(mixing, best, axis=1)
        logits = jnp.einsum("NMC,NhwC->NhwM", mixing, upsampled)
        return jax.nn.sigmoid(resize_bilinear(logits, mask.shape[1], mask.shape[2])[..., 0]), iou

    def _look(
        self, fused: Float[Array, "N g g E"], mask: Float[Array, "N S S"]
    ) -> tuple[Float[Array, "N T E"], Float[Array, "N fine fine narrow"]]:
        """Tokens and upsampled features after the two-way blocks."""
        count, embed = len(mask), self.config.embed
        image = (fused + self.mask_encoder(mask)).reshape(count, -1, embed)
        places = self.image_positions.reshape(-1, embed)
        tokens = jnp.concatenate([self.mask_tokens, self.iou_token])
        tokens = jnp.broadcast_to(tokens, (count, *tokens.shape))
        (tokens, image), _ = self.blocks((tokens, image), self.token_positions, places)
        tokens = self.final_norm(tokens + self.final_attention(tokens + self.token_positions, image + places, image))
        return tokens, self.upsampler(image.reshape(count, self.grid, self.grid, embed))


def make_head(model: ModelConfig) -> RefinementHead:
    """The head that fits a model's vision encoder."""
    return RefinementHead(model.refiner, model.vision.grid)


def for_this_backend(head: RefinementHead) -> RefinementHead:
    """The same head in the forms that are fast where it will run; parameters are the same."""
    return head.clone(on_cpu=platform() == "cpu")


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


def refine_each(
    head: RefinementHead,
    params: dict,
    final: Float[Array, "N gg W"],
    early: Float[Array, "N gg W"],
    coarse: Float[Array, "N S S"],
    iterations: int,
) -> list[tuple[Float[Array, "N S S"], Float[Array, " N"]]]:
    """The best mask of every iteration of `refine_loop`, as probabilities, and its predicted IoU.

    Draws no other candidate.

    Args:
      head: the module; `params` are its parameters.
      final: features after the encoder's last LayerNorm.
      early: output of the encoder's early block.
      coarse: the mask to start from, 0 or 1 in the crop's frame.
      iterations: at least 1.
    """
    head = for_this_backend(head)
    fused: Any = head.apply({"params": params}, final, early, method="fuse")
    mask, steps = coarse.astype(fused.dtype), []
    # Unrolled for the reason given in `refine_loop`.
    for _ in range(iterations):
        improved: Any = head.apply({"params": params}, fused, mask, method="improve_best")
        mask, iou = improved
        steps.append((mask, jnp.max(iou, axis=-1)))
    return steps
